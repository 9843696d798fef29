"""What the commands on a root that stands take on the command line, and which function each of them is."""

from __future__ import annotations

import argparse

from curation.root_lock import hold_all, hold_both, hold_root
from curation.storage import Root
from curation.terminal import write_error, write_out
from jobs.commands.browse_command import browse_root
from jobs.commands.forget_arguments import add_forget_arguments
from jobs.commands.parsers import Commands, add_command, add_json, add_root
from jobs.commands.root_commands import (
    collect_garbage,
    compact_root,
    open_root,
    seal_root,
    show_status,
    verify_root,
)
from jobs.spark.stage import add_quiet


def add_root_commands(commands: Commands) -> None:
    """Commands that look at a root, keep it in order, or make one of what is there."""
    for name, text, action in (
        ("status", "the funnel: a count and share per reason", show_status),
        ("verify", "re-read everything and prove that every row is accounted for", verify_root),
        ("seal", "verify a root of an earlier version, then record the sum of every file", seal_root),
    ):
        command = add_command(commands, name, text, action)
        add_root(command)
        if name != "status":
            add_quiet(command)
        if name != "seal":
            add_json(command)
        if name == "verify":
            command.add_argument("--quick", action="store_true", help="sizes, what is missing, and small files alone")
            command.add_argument("--all", action="store_true", help="say every difference, not the first one alone")
    _add_report(commands)
    _add_browse(commands)
    _add_query(commands)
    _add_adopt(commands)
    _add_export(commands)
    _add_gc(commands)
    _add_compact(commands)
    _add_forget(commands)
    _add_sample(commands)
    _add_merge(commands)
    _add_move(commands)


def _add_report(commands: Commands) -> None:
    text = "the funnel, distributions with thresholds, duplicates, speed, training and pictures as one HTML page"
    report = add_command(commands, "report", text, _report)
    add_root(report)
    report.add_argument("--output", default="report.html", metavar="FILE.html", help="the page (report.html)")
    report.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="DIR",
        help="folder of a training to show; more than once for more",
    )
    add_quiet(report)


def _add_browse(commands: Commands) -> None:
    text = "a page on this machine that searches the pictures and says why each is kept or not; reads only"
    browse = add_command(commands, "browse", text, browse_root)
    add_root(browse)
    browse.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1 (a free one)")
    browse.add_argument("--seconds", type=float, default=20.0, metavar="S", help="that one question may take (20)")
    browse.add_argument("--model", metavar="FILE", help="the CLIP that embedded the root, to search by meaning")
    browse.add_argument("--marks", metavar="FILE.parquet", help="takes your marks: a table for [scores.NAME]")


def _add_query(commands: Commands) -> None:
    text = "SQL over the manifest, by DuckDB"
    query = add_command(commands, "query", text, _query)
    add_root(query)
    query.add_argument("sql", metavar="SQL", help="one SELECT over the views, such as manifest")
    forms = ("table", "csv", "json", "parquet")
    query.add_argument("--format", choices=forms, default="table", help="json is one object a line (table)")
    query.add_argument("--allow-files", action="store_true", help="let the SQL read files outside of the root too")
    query.add_argument("--quick", action="store_true", help="compare the sizes of the files alone, not their sums")
    text = "memory that DuckDB may hold; the rest goes to disk below TMPDIR (four fifths of the machine's)"
    query.add_argument("--memory-gb", type=float, metavar="GB", help=text)
    query.add_argument("--output", metavar="FILE", help="write here instead of to the terminal")


def _add_adopt(commands: Commands) -> None:
    text = "take in what is there: webdataset tars, folders of pictures, parquet with pictures; files are not copied"
    adopt = add_command(commands, "adopt", text, _adopt)
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


def _add_export(commands: Commands) -> None:
    text = "hand the selection to other tools"
    export = add_command(commands, "export", text, _export)
    add_root(export)
    forms = ("uids", "shards", "parquet")
    export.add_argument("--format", choices=forms, required=True, help="uids is DataComp's .npy")
    export.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    export.add_argument("--where", default="", metavar="SQL", help="condition on train_index")
    add_quiet(export)


def _add_gc(commands: Commands) -> None:
    text = "versions of train shards, selection and duplicates that are no longer current: list or delete them"
    gc = add_command(commands, "gc", text, collect_garbage)
    add_root(gc)
    gc.add_argument("--yes", action="store_true", help="delete them; without it they are only listed")


def _add_compact(commands: Commands) -> None:
    text = "join the small files of units into files of about a million rows; what is read from the root stays the same"
    compact = add_command(commands, "compact", text, compact_root)
    add_root(compact)
    compact.add_argument("--undo", action="store_true", help="give every unit a file of its own again")
    add_quiet(compact)


def _add_forget(commands: Commands) -> None:
    text = "removal requests: take rows out of every file of a root, keep them out, and prove that nothing is left"
    command = add_command(commands, "forget", text, _forget)
    add_root(command)
    add_forget_arguments(command)
    add_json(command)
    add_quiet(command)


def _add_sample(commands: Commands) -> None:
    text = "a share of the rows as a root of its own, with their pictures, vectors and scores"
    command = add_command(commands, "sample", text, _sample)
    add_root(command, "from_root")
    command.add_argument("--share", type=float, required=True, metavar="SHARE", help="between 0 and 1, such as 0.01")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="another one takes other rows (0)")
    command.add_argument("--root", required=True, metavar="NEW", help="new folder or URL that the sample fills")
    add_quiet(command)


def _add_merge(commands: Commands) -> None:
    text = "join roots into one that has each uid once; what one root was asked to forget comes from none"
    command = add_command(commands, "merge", text, _merge)
    add_root(command, "from_root")
    command.add_argument(
        "others", nargs="+", metavar="OTHER", help="further roots; of equal rows the earlier one's counts"
    )
    command.add_argument("--into", required=True, metavar="NEW", help="new folder or URL that takes the rows")
    command.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="TABLE",
        help="embeddings…, scores_…: leave this table out, to be made anew; may be repeated",
    )
    add_quiet(command)


def _add_move(commands: Commands) -> None:
    text = "carry a root to another folder or store, each file compared with its sum; the old one stays"
    command = add_command(commands, "move", text, _move)
    add_root(command, "from_root")
    command.add_argument("to_root", metavar="NEW", help="new folder or URL")
    add_quiet(command)


def _report(arguments: argparse.Namespace) -> None:
    from curation.report import write_html

    write_html(open_root(arguments.root), arguments.output, arguments.run)
    write_out(f"{arguments.output}\n")


def _query(arguments: argparse.Namespace) -> None:
    from curation.freshness import find_mixed
    from curation.manifest.manifest import Check
    from curation.manifest.query import write_query

    root = open_root(arguments.root)
    write_error("".join(f"curate query: {sentence}\n" for sentence in find_mixed(root)))
    check: Check | None = "sizes" if arguments.quick else None
    allow_files, memory_gb = arguments.allow_files, arguments.memory_gb
    write_query(
        root, arguments.sql, arguments.format, arguments.output, allow_files=allow_files, check=check,
        memory_gb=memory_gb,
    )  # fmt: skip


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
    with hold_both(root, target):
        number = sample(root, target, arguments.share, arguments.seed)
    write_out(f"{target.base} has {number:,} rows of {root.base}: go on with `curate dedupe`, `select` and `pack`.\n")


def _merge(arguments: argparse.Namespace) -> None:
    from curation.merging import merge
    from curation.merging.messages import describe_merge

    roots, target = [open_root(url) for url in (arguments.from_root, *arguments.others)], Root(arguments.into)
    with hold_all(roots, target):
        counts = merge(roots, target, frozenset(arguments.without))
    write_out(describe_merge(roots, target, counts, arguments.without))


def _move(arguments: argparse.Namespace) -> None:
    from curation.moving import move

    root, target = open_root(arguments.from_root), Root(arguments.to_root)
    with hold_both(root, target):
        number = move(root, target)
    write_out(
        f"{target.base} has all {number:,} files of {root.base}, which stays: delete it when you need it no more.\n"
    )


def _forget(arguments: argparse.Namespace) -> int:
    from jobs.commands.forget_command import forget_rows

    return forget_rows(arguments)


def _export(arguments: argparse.Namespace) -> None:
    from curation.export import export

    export(open_root(arguments.root), arguments.format, arguments.output, where=arguments.where)
