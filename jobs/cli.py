"""Curate image-text pairs: `curate STAGE --recipe R.toml --root ROOT`, and commands that look at a root.

Each stage is the same function as `spark-submit jobs/STAGE.py --recipe R.toml --root ROOT`.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from curation import __version__
from curation.command import run_guarded, run_program
from curation.errors import UserError
from curation.progress import be_quiet
from curation.recipe.config import load_recipe
from curation.root_lock import hold_root
from curation.storage import Root
from curation.terminal import write_error, write_out
from jobs.commands.completion import render_completion
from jobs.commands.parsers import Commands, add_command, add_json
from jobs.commands.root_commands import open_root, write_json
from jobs.commands.root_parsers import add_root_commands
from jobs.spark.stage import PREFIX, add_arguments, add_recipe_arguments, check_stages, run_stages
from jobs.stages import STAGES, load_stages, plan_stages

FIRST_STEPS = """\
From nothing to a trained model:
  curate demo                                      the whole way on a small web on this machine
  curate check --recipe mine.toml                  whether your recipe is right; README.md shows one
  curate run --recipe mine.toml --root ROOT        metadata to train shards; kill it and run it again as you like
  curate status ROOT                               what was kept, and what was lost for which reason
  torchrun -m trainer.train --config debug --set data.root=ROOT       train on it
  curate --help                                    all commands
"""
OF_WHAT_IF = ("rules", "filters", "scores", "select")
"""Sections that `--what-if FILE` reads of its file; all others are the recipe's, and the limits of select too."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="curate", description=__doc__.splitlines()[0] if __doc__ else None)
    top.add_argument("--version", action="version", version=f"curate {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in STAGES.items():
        stage = add_command(commands, name, text, _stage)
        add_arguments(stage)
        if name == "dedupe":
            stage.add_argument("--preview", metavar="FILE.html", help="contact sheet of pairs; decides nothing")
        if name == "select":
            stage.add_argument("--what-if", metavar="RULES.toml", help="count what its rules would drop; write nothing")
            stage.add_argument("--examples", type=int, default=0, metavar="N", help="of --what-if: N of each rule")
    add_arguments(add_command(commands, "run", "all stages, one after the other", _run))
    _add_check(commands)
    _add_plan(commands)
    add_root_commands(commands)
    _add_train_filter(commands)
    text = "the whole way on a small web on loopback, then a trained step"
    demo = add_command(commands, "demo", text, _demo)
    demo.add_argument("--root", default="demo-run", metavar="ROOT", help="folder that the demo fills (demo-run)")
    demo.add_argument("--no-train", action="store_true", help="stop after packing")
    _add_completion(commands)
    return top


def _add_check(commands: Commands) -> None:
    text = "recipe, rules, filters, models and paths, as a run would check them; nothing is written"
    check = add_command(commands, "check", text, _check)
    add_recipe_arguments(check)
    check.add_argument("--root", metavar="ROOT", help="the root of the run; without one, a new one")
    add_json(check)


def _add_plan(commands: Commands) -> None:
    text = "days, storage, requests, GPU hours and money of a run before it begins, with the reason of each"
    plan = add_command(commands, "plan", text, _plan)
    plan.add_argument("--rows", required=True, metavar="N", help="rows of metadata, such as 2.3e9")
    add_recipe_arguments(plan)
    plan.add_argument("--cluster", required=True, metavar="FILE", help="TOML: machines, GPUs and storage with prices")
    add_json(plan)


def _add_completion(commands: Commands) -> None:
    text = "what bash needs to complete commands: source <(curate completion)"
    add_command(commands, "completion", text, _complete)


def _add_train_filter(commands: Commands) -> None:
    text = "train a small CLIP on the rows you trust, and score all rows by it"
    train = add_command(commands, "train-filter", text, _train_filter)
    add_arguments(train)
    train.add_argument("--name", required=True, metavar="NAME", help="the model's, as in [embed.models.NAME]")
    train.add_argument("--where", required=True, metavar="SQL", help="condition on the manifest: the rows to trust")
    train.add_argument("--config", default="filter-small", metavar="FILE", help="of the trainer (filter-small)")
    train.add_argument("--set-training", action="append", default=[], metavar="section.key=value", help="override it")
    train.add_argument("--num-ranks", type=int, default=1, metavar="N", help="processes that train, one a GPU (1)")


def _what_if(arguments: argparse.Namespace) -> None:
    from jobs.selection import preview_rules

    if arguments.examples < 0:
        raise UserError(f"--examples must be 0 or more, not {arguments.examples}.")
    sections = [(setting.partition(".")[0].strip(), setting) for setting in arguments.set]
    recipe = load_recipe(arguments.recipe, [setting for section, setting in sections if section != "rules"])
    wanted = load_recipe(arguments.what_if, [setting for section, setting in sections if section in OF_WHAT_IF])
    root = open_root(arguments.root)
    with hold_root(root):  # what another run is about to replace would be counted half old and half new
        said = preview_rules(recipe, wanted, root, arguments.examples)
    write_out(said)


def _stage(arguments: argparse.Namespace) -> None:
    if getattr(arguments, "what_if", None):
        _what_if(arguments)
        return
    (stage,) = load_stages([arguments.command])
    if getattr(arguments, "preview", None):
        from jobs.duplicates.preview import preview  # it imports pyspark

        stage = replace(stage, run=lambda spark, recipe, root: preview(spark, recipe, root, arguments.preview))
    run_stages([stage], arguments)


def _run(arguments: argparse.Namespace) -> None:
    recipe, root = load_recipe(arguments.recipe, arguments.set), Root(arguments.root)
    names, left_out = plan_stages(recipe, root)
    write_error(left_out)
    run_stages(load_stages(names), arguments)


def _check(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe, root = load_recipe(arguments.recipe, arguments.set), Root(arguments.root or f"{folder}/new")
        names, left_out = plan_stages(recipe, root)
        write_error(left_out)
        check_stages(load_stages(names), recipe, root)
    counts = {name: len(getattr(recipe, name)) for name in ("sources", "filters", "rules")}
    if arguments.json:
        write_json({"right": True, **counts, "model": recipe.embed.model, "stages": names})
        return
    found = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    write_out(f"The recipe is right: {found}, model {recipe.embed.model}. Nothing was written.\n")


def _plan(arguments: argparse.Namespace) -> None:
    from jobs.commands.costs import plan_costs  # it imports the trainer

    plan_costs(arguments)


def _train_filter(arguments: argparse.Namespace) -> None:
    from jobs.train_filter import run_train_filter  # it imports pyspark

    run_train_filter(
        arguments.recipe,
        arguments.set,
        Root(arguments.root),
        name=arguments.name,
        where=arguments.where,
        config=arguments.config,
        changes=arguments.set_training,
        num_ranks=arguments.num_ranks,
    )


def _demo(arguments: argparse.Namespace) -> int:
    from jobs.demo import demo

    return demo(arguments.root, train=not arguments.no_train)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `curate`; exits 0, 1 (verify found a difference), 2 (bad input), 130 (interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        write_out(FIRST_STEPS)
        sys.exit(0)
    sys.exit(run_guarded(lambda: _act(words), PREFIX))


def program() -> NoReturn:
    """The program `curate`: `main` in a process of its own."""
    run_program(main)


def _act(words: list[str]) -> int | None:
    whole = parser()
    _refuse_unknown(whole, words[0])
    arguments = whole.parse_args(words)
    be_quiet(getattr(arguments, "quiet", False))
    status: int | None = arguments.action(arguments)
    return status


def _list_commands(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (commands,) = (action.choices for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands)


def _complete(_: argparse.Namespace) -> None:
    write_out(render_completion(_list_commands(parser())))


def _refuse_unknown(whole: argparse.ArgumentParser, word: str) -> None:
    """Raise UserError for a command that does not exist, with the nearest one."""
    commands = _list_commands(whole)
    if not word.startswith("-") and word not in commands:
        close = difflib.get_close_matches(word, commands, n=1, cutoff=0.5)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"There is no command {word!r}{hint}; there are {', '.join(commands)}.")


if __name__ == "__main__":
    program()
