"""What every stage shares on the command line: its arguments, and one sentence with exit status 2 for bad input."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from curation.errors import UserError
from curation.recipe.config import Recipe, load
from curation.storage import Root

BROKEN_PIPE = 141
"""What a shell shows of a program that SIGPIPE ended."""
Run = Callable[[Any, Recipe, Root], None]


def guarded(action: Callable[[], int | None]) -> int:
    """Exit status of `action`: its own, 2 with one sentence for bad input, 130 when interrupted, 141 when unread."""
    try:
        return action() or 0
    except UserError as error:
        sys.stderr.write(f"curate: {error}\n")
        return 2
    except BrokenPipeError:  # whoever read has had enough: `curate query … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.errno is None:
            raise
        place = f" ({error.filename})" if error.filename else ""
        sys.stderr.write(f"curate: {error.strerror}{place}; nothing finished was lost, run the same command again.\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("curate: interrupted; run the same command again to go on.\n")
        return 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--recipe, --root and --set, the same for every stage."""
    parser.add_argument("--recipe", required=True, metavar="R.toml", help="recipe file, or the name of a shipped one")
    parser.add_argument("--root", required=True, metavar="ROOT", help="folder or URL that the run fills")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="override the recipe")


def run_stages(stages: dict[str, Run], arguments: argparse.Namespace) -> None:
    """Check recipe and root once, start Spark once, run `stages` in order, saying which one is at work."""
    recipe = load(arguments.recipe, arguments.set)
    root = Root(arguments.root)
    if "ingest" not in stages:
        root.check()
    # Spark starts only once recipe and root are known to be good, and looking at a root never needs it.
    from pyspark.errors import PythonException

    from jobs.spark.session import session

    spark = session("curate")
    for name, run in stages.items():
        started = time.monotonic()
        try:
            run(spark, recipe, root)
        except PythonException as error:
            raise _from_task(error) from error
        sys.stderr.write(f"{name:9} done in {time.monotonic() - started:6.1f} s\n")


def _from_task(error: Exception) -> Exception:
    """The UserError or OSError that a Spark task raised, which arrives as text; otherwise `error` itself."""
    user = re.search(r"curation\.errors\.UserError: (.*)", str(error))
    if user:
        return UserError(user[1])
    system = re.search(r"^OSError: \[Errno (\d+)\] ([^:\n]*)(?:: '(.*)')?$", str(error), re.MULTILINE)
    return OSError(int(system[1]), system[2], system[3]) if system else error


def run_stage(name: str, run: Run, arguments: argparse.Namespace) -> None:
    """`run_stages` of one stage."""
    run_stages({name: run}, arguments)


def main(name: str, run: Run) -> None:
    """Entry of `spark-submit jobs/NAME.py --recipe … --root …`; exits."""
    parser = argparse.ArgumentParser(prog=f"jobs/{name}.py")
    add_arguments(parser)
    arguments = parser.parse_args()
    sys.exit(guarded(lambda: run_stage(name, run, arguments)))
