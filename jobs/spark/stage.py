"""What every stage shares on the command line: its arguments, its checks, and one sentence for bad input."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from curation.command import end_process, run_guarded
from curation.progress import be_quiet, is_quiet
from curation.recipe.config import Recipe, load_recipe
from curation.root_lock import hold_root
from curation.stage_log import log_stage
from curation.storage import Root
from curation.terminal import write_error

DIVIDED_BY_SPARK = ("ingest", "dedupe", "select", "pack")
"""Stages whose progress Spark knows; the others count their units themselves."""
PREFIX = "curate: "
"""Stands before what a command says of its end."""
Check = Callable[[Recipe, Root], None]
Run = Callable[[Any, Recipe, Root], None]
RunHere = Callable[[Recipe, Root], None]
RunsHere = Callable[[Recipe], bool]


@dataclass(frozen=True)
class Stage:
    """One stage, as its module defines it."""

    name: str
    check: Check
    """`check(recipe, root)` raises UserError for whatever is known to be wrong before any stage has run. It starts no
    Spark session and writes nothing. The root need not exist yet: an earlier stage may make it."""
    run: Run
    """`run(spark, recipe, root)` does what is left to do. Raises UserError before anything is written."""
    run_here: RunHere | None = None
    """`run_here(recipe, root)` does the same on this machine without Spark; None where only Spark does it."""
    runs_here: RunsHere | None = None
    """`runs_here(recipe)` says whether `run_here` can do what the recipe asks for; None where it always can."""

    def runs_on_spark(self, recipe: Recipe) -> bool:
        """Whether only Spark does what `recipe` asks for."""
        return self.run_here is None or (self.runs_here is not None and not self.runs_here(recipe))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--recipe, --root and --set, the same for every stage."""
    add_recipe_arguments(parser)
    parser.add_argument("--root", required=True, metavar="ROOT", help="folder or URL that the run fills")
    add_quiet(parser)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """--quiet."""
    parser.add_argument("--quiet", action="store_true", help="no progress; errors and results only")


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """--recipe and --set."""
    parser.add_argument("--recipe", required=True, metavar="R.toml", help="recipe file, or the name of a shipped one")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="override the recipe")


def run_stages(stages: Sequence[Stage], arguments: argparse.Namespace) -> None:
    """Check recipe and root for all `stages`, and run them in order, saying which one is at work.

    Another run on the same root is waited for.

    Raises UserError before Spark starts and before anything is written, for whatever can be known by then.
    """
    be_quiet(getattr(arguments, "quiet", False))
    recipe = load_recipe(arguments.recipe, arguments.set)
    root = Root(arguments.root)
    check_stages(stages, recipe, root)
    if any(stage.runs_on_spark(recipe) for stage in stages[1:]):  # a first one asks for itself
        _check_java()
    with hold_root(root) as waited:
        if waited:
            check_stages(stages, recipe, root)
        run_loaded(stages, recipe, root)


def _check_java() -> None:
    """Raise UserError where a later stage would find no Java, after hours perhaps."""
    from jobs.spark.session import check_java

    check_java()


def run_loaded(stages: Sequence[Stage], recipe: Recipe, root: Root) -> None:
    """Run `stages` in order. Raises UserError or OSError, whatever a stage ends of.

    Spark starts, once, before the first stage that needs it: that takes a Java, seconds and memory.
    """
    for needs_spark, group in itertools.groupby(stages, lambda stage: stage.runs_on_spark(recipe)):
        if needs_spark:
            _run_on_spark(list(group), recipe, root)
        else:
            _run_here(list(group), recipe, root)


def _run_here(stages: Sequence[Stage], recipe: Recipe, root: Root) -> None:
    for stage in stages:
        if stage.run_here is not None:
            with _timed(stage), log_stage(root, stage.name):
                stage.run_here(recipe, root)


def _run_on_spark(stages: Sequence[Stage], recipe: Recipe, root: Root) -> None:
    # Looking at a root, and being told of a mistake in the recipe, should not wait for pyspark.
    from jobs.spark.errors import keep_trace
    from jobs.spark.log import open_log
    from jobs.spark.refusals import end_at_refusal
    from jobs.spark.session import session
    from jobs.spark.watch import watch_jobs

    with open_log(root) as log:
        with keep_trace(root, log):
            spark = session("curate", log)
        for stage in stages:
            watching = watch_jobs(spark, stage.name) if stage.name in DIVIDED_BY_SPARK else contextlib.nullcontext()
            with _timed(stage), keep_trace(root, log), end_at_refusal(spark), watching, log_stage(root, stage.name):
                stage.run(spark, recipe, root)


@contextlib.contextmanager
def _timed(stage: Stage) -> Iterator[None]:
    """Say how long the stage took, when it is done."""
    started = time.monotonic()
    yield
    if not is_quiet():
        write_error(f"{stage.name:9} done in {time.monotonic() - started:6.1f} s\n")


def check_stages(stages: Sequence[Stage], recipe: Recipe, root: Root) -> None:
    """Raise UserError for the first thing that any of `stages` knows to be wrong."""
    if all(stage.name != "ingest" for stage in stages):
        root.check_format()
    for stage in stages:
        stage.check(recipe, root)


def main(name: str, check: Check, run: Run) -> NoReturn:
    """Entry of `spark-submit jobs/NAME.py --recipe … --root …`; exits."""
    parser = argparse.ArgumentParser(prog=f"jobs/{name}.py")
    add_arguments(parser)
    arguments = parser.parse_args()
    end_process(run_guarded(lambda: run_stages([Stage(name, check, run)], arguments), PREFIX))
