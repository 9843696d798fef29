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
from typing import TypeAlias

from curation import __version__
from curation.command import run_guarded
from curation.errors import UserError
from curation.progress import be_quiet
from curation.recipe.config import load_recipe
from curation.root_lock import hold_root
from curation.storage import Root
from curation.terminal import write_error, write_out
from jobs.commands.browse_command import browse_root
from jobs.commands.completion import render_completion
from jobs.commands.forget_arguments import add_forget_arguments
from jobs.commands.root_commands import collect_garbage, open_root, seal_root, show_status, verify_root, write_json
from jobs.spark.stage import PREFIX, add_arguments, add_quiet, add_recipe_arguments, check_stages, run_stages
from jobs.stages import STAGES, load_stages, plan_stages

ROOT_HELP = "folder or URL that a run has filled"
FIRST_STEPS = """\
From nothing to a trained model:
  curate demo                                      the whole way on a small web on this machine
  curate check --recipe mine.toml                  whether your recipe is right; README.md shows one
  curate run --recipe mine.toml --root ROOT        metadata to train shards; kill it and run it again as you like
  curate status ROOT                               what was kept, and what was lost for which reason
  torchrun -m trainer.train --config debug --set data.root=ROOT       train on it
  curate --help                                    all commands
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="curate", description=__doc__.splitlines()[0] if __doc__ else None)
    top.add_argument("--version", action="version", version=f"curate {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in STAGES.items():
        stage = commands.add_parser(name, help=text, description=text)
        add_arguments(stage)
        if name == "dedupe":
            stage.add_argument("--preview", metavar="FILE.html", help="contact sheet of pairs; decides nothing")
        if name == "select":
            stage.add_argument("--what-if", metavar="RULES.toml", help="count what its rules would drop; write nothing")
            stage.add_argument("--examples", type=int, default=0, metavar="N", help="of --what-if: N of each rule")
        stage.set_defaults(action=_stage)
    text = "all stages, one after the other"
    whole = commands.add_parser("run", help=text, description=text)
    add_arguments(whole)
    whole.set_defaults(action=_run)
    _add_check(commands)
    _add_plan(commands)
    for name, text, action in (
        ("status", "the funnel: a count and share per reason", show_status),
        ("verify", "re-read everything and prove that every row is accounted for", verify_root),
        ("seal", "verify a root of an earlier version, then record the sum of every file", seal_root),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("root", metavar="ROOT", help=ROOT_HELP)
        command.set_defaults(action=action)
        if name != "status":
            add_quiet(command)
        if name != "seal":
            _add_json(command)
        if name == "verify":
            command.add_argument("--quick", action="store_true", help="sizes, what is missing, and small files alone")
            command.add_argument("--all", action="store_true", help="say every difference, not the first one alone")
    _add_report(commands)
    _add_browse(commands)
    _add_query(commands)
    _add_adopt(commands)
    _add_train_filter(commands)
    _add_export(commands)
    _add_gc(commands)
    _add_forget(commands)
    _add_sample(commands)
    _add_move(commands)
    text = "the whole way on a small web on loopback, then a trained step"
    demo = commands.add_parser("demo", help=text, description=text)
    demo.add_argument("--root", default="demo-run", metavar="ROOT", help="folder that the demo fills (demo-run)")
    demo.add_argument("--no-train", action="store_true", help="stop after packing")
    demo.set_defaults(action=_demo)
    _add_completion(commands)
    return top


Commands: TypeAlias = (
    "argparse._SubParsersAction[argparse.ArgumentParser]"  # argparse gives its return type no public name
)


def _add_check(commands: Commands) -> None:
    text = "recipe, rules, filters, models and paths, as a run would check them; nothing is written"
    check = commands.add_parser("check", help=text, description=text)
    add_recipe_arguments(check)
    check.add_argument("--root", metavar="ROOT", help="the root of the run; without one, a new one")
    _add_json(check)
    check.set_defaults(action=_check)


def _add_plan(commands: Commands) -> None:
    text = "days, storage, requests, GPU hours and money of a run before it begins, with the reason of each"
    plan = commands.add_parser("plan", help=text, description=text)
    plan.add_argument("--rows", required=True, metavar="N", help="rows of metadata, such as 2.3e9")
    add_recipe_arguments(plan)
    plan.add_argument("--cluster", required=True, metavar="FILE", help="TOML: machines, GPUs and storage with prices")
    _add_json(plan)
    plan.set_defaults(action=_plan)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="one line of JSON for programs")


def _add_completion(commands: Commands) -> None:
    text = "what bash needs to complete commands: source <(curate completion)"
    completion = commands.add_parser("completion", help=text, description=text)
    completion.set_defaults(action=_complete)


def _add_gc(commands: Commands) -> None:
    text = "versions of train shards, selection and duplicates that are no longer current: list or delete them"
    gc = commands.add_parser("gc", help=text, description=text)
    gc.add_argument("root", metavar="ROOT", help=ROOT_HELP)
    gc.add_argument("--yes", action="store_true", help="delete them; without it they are only listed")
    gc.set_defaults(action=collect_garbage)


def _add_forget(commands: Commands) -> None:
    text = "removal requests: take rows out of every file of a root, keep them out, and prove that nothing is left"
    command = commands.add_parser("forget", help=text, description=text)
    command.add_argument("root", metavar="ROOT", help=ROOT_HELP)
    add_forget_arguments(command)
    _add_json(command)
    add_quiet(command)
    command.set_defaults(action=_forget)


def _add_sample(commands: Commands) -> None:
    text = "a share of the rows as a root of its own, with their pictures, vectors and scores"
    command = commands.add_parser("sample", help=text, description=text)
    command.add_argument("from_root", metavar="ROOT", help=ROOT_HELP)
    command.add_argument("--share", type=float, required=True, metavar="SHARE", help="between 0 and 1, such as 0.01")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="another one takes other rows (0)")
    command.add_argument("--root", required=True, metavar="NEW", help="new folder or URL that the sample fills")
    add_quiet(command)
    command.set_defaults(action=_sample)


def _add_move(commands: Commands) -> None:
    text = "carry a root to another folder or store, each file compared with its sum; the old one stays"
    command = commands.add_parser("move", help=text, description=text)
    command.add_argument("from_root", metavar="ROOT", help=ROOT_HELP)
    command.add_argument("to_root", metavar="NEW", help="new folder or URL")
    add_quiet(command)
    command.set_defaults(action=_move)


def _add_report(commands: Commands) -> None:
    text = "the funnel, score distributions and pictures of each reason as one HTML page"
    report = commands.add_parser("report", help=text, description=text)
    report.add_argument("root", metavar="ROOT", help=ROOT_HELP)
    report.add_argument("--output", default="report.html", metavar="FILE.html", help="the page (report.html)")
    add_quiet(report)
    report.set_defaults(action=_report)


def _add_browse(commands: Commands) -> None:
    text = "a page on this machine that searches the pictures and says why each is kept or not; reads only"
    browse = commands.add_parser("browse", help=text, description=text)
    browse.add_argument("root", metavar="ROOT", help=ROOT_HELP)
    browse.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1 (a free one)")
    browse.add_argument("--seconds", type=float, default=20.0, metavar="S", help="that one question may take (20)")
    browse.add_argument("--model", metavar="FILE", help="the CLIP that embedded the root, to search by meaning")
    browse.add_argument("--marks", metavar="FILE.parquet", help="takes your marks: a table for [scores.NAME]")
    browse.set_defaults(action=browse_root)


def _add_query(commands: Commands) -> None:
    text = "SQL over the manifest, by DuckDB"
    query = commands.add_parser("query", help=text, description=text)
    query.add_argument("root", metavar="ROOT", help=ROOT_HELP)
    query.add_argument("sql", metavar="SQL", help="one SELECT over the views, such as manifest")
    forms = ("table", "csv", "json", "parquet")
    query.add_argument("--format", choices=forms, default="table", help="json is one object a line (table)")
    query.add_argument("--allow-files", action="store_true", help="let the SQL read files outside of the root too")
    query.add_argument("--quick", action="store_true", help="compare the sizes of the files alone, not their sums")
    query.add_argument("--output", metavar="FILE", help="write here instead of to the terminal")
    query.set_defaults(action=_query)


def _add_adopt(commands: Commands) -> None:
    text = "take in what is there: webdataset tars, folders of pictures, parquet with pictures; files are not copied"
    adopt = commands.add_parser("adopt", help=text, description=text)
    adopt.add_argument(
        "folders", nargs="+", metavar="DIR", help="folder, with all folders below it, or a pattern of such folders"
    )
    adopt.add_argument(
        "--captions", metavar="FILE", help="CSV, TSV, JSON or parquet with the names and captions of pictures"
    )
    adopt.add_argument(
        "--columns",
        metavar="image=NAME,caption=NAME,url=NAME",
        help="which columns of FILE, or of parquet files with pictures, are which; usual names are found",
    )
    adopt.add_argument("--root", required=True, metavar="ROOT", help="folder or URL that takes the tables")
    add_quiet(adopt)
    adopt.set_defaults(action=_adopt)


def _add_train_filter(commands: Commands) -> None:
    text = "train a small CLIP on the rows you trust, and score all rows by it"
    train = commands.add_parser("train-filter", help=text, description=text)
    add_arguments(train)
    train.add_argument("--name", required=True, metavar="NAME", help="the model's, as in [embed.models.NAME]")
    train.add_argument("--where", required=True, metavar="SQL", help="condition on the manifest: the rows to trust")
    train.add_argument("--config", default="filter-small", metavar="FILE", help="of the trainer (filter-small)")
    train.add_argument("--set-training", action="append", default=[], metavar="section.key=value", help="override it")
    train.add_argument("--num-ranks", type=int, default=1, metavar="N", help="processes that train, one a GPU (1)")
    train.set_defaults(action=_train_filter)


def _add_export(commands: Commands) -> None:
    text = "hand the selection to other tools"
    export = commands.add_parser("export", help=text, description=text)
    export.add_argument("root", metavar="ROOT", help=ROOT_HELP)
    forms = ("uids", "shards", "parquet")
    export.add_argument("--format", choices=forms, required=True, help="uids is DataComp's .npy")
    export.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    export.add_argument("--where", default="", metavar="SQL", help="condition on train_index")
    add_quiet(export)
    export.set_defaults(action=_export)


def _what_if(arguments: argparse.Namespace) -> None:
    from jobs.selection import preview_rules

    if arguments.examples < 0:
        raise UserError(f"--examples must be 0 or more, not {arguments.examples}.")
    recipe = load_recipe(arguments.recipe)
    wanted = load_recipe(arguments.what_if, arguments.set)
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


def _report(arguments: argparse.Namespace) -> None:
    from curation.report import write_html

    write_html(open_root(arguments.root), arguments.output)
    write_out(f"{arguments.output}\n")


def _query(arguments: argparse.Namespace) -> None:
    from curation.freshness import find_mixed
    from curation.manifest.manifest import Check
    from curation.manifest.query import write_query

    root = open_root(arguments.root)
    write_error("".join(f"curate query: {sentence}\n" for sentence in find_mixed(root)))
    check: Check | None = "sizes" if arguments.quick else None
    write_query(root, arguments.sql, arguments.format, arguments.output, allow_files=arguments.allow_files, check=check)


def _adopt(arguments: argparse.Namespace) -> None:
    from curation.adopt import adopt
    from curation.adopt.captions import parse_columns
    from curation.paths import find_folders

    columns = parse_columns(arguments.columns or "")
    root = Root(arguments.root)
    folders = [folder for pattern in arguments.folders for folder in find_folders(pattern)]
    with hold_root(root):
        adopt(root, folders, arguments.captions or "", columns)


def _sample(arguments: argparse.Namespace) -> None:
    from curation.sampling import sample

    root, target = open_root(arguments.from_root), Root(arguments.root)
    with hold_root(root), hold_root(target):
        number = sample(root, target, arguments.share, arguments.seed)
    write_out(f"{target.base} has {number:,} rows of {root.base}: go on with `curate dedupe`, `select` and `pack`.\n")


def _move(arguments: argparse.Namespace) -> None:
    from curation.moving import move

    root, target = open_root(arguments.from_root), Root(arguments.to_root)
    with hold_root(root), hold_root(target):
        number = move(root, target)
    write_out(
        f"{target.base} has all {number:,} files of {root.base}, which stays: delete it when you need it no more.\n"
    )


def _forget(arguments: argparse.Namespace) -> int:
    from jobs.commands.forget_command import forget_rows

    return forget_rows(arguments)


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


def _export(arguments: argparse.Namespace) -> None:
    from curation.export import export

    export(open_root(arguments.root), arguments.format, arguments.output, where=arguments.where)


def _demo(arguments: argparse.Namespace) -> int:
    from jobs.demo import demo

    return demo(arguments.root, train=not arguments.no_train)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `curate`; exits 0, 1 (verify found a difference), 2 (bad input), 130 (interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        write_out(FIRST_STEPS)
        sys.exit(0)
    sys.exit(run_guarded(lambda: _act(words), PREFIX))


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
    main()
