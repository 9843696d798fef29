"""Adopt what is there already: pictures stay where they are, and the root's tables point to them.

    curate adopt DIR… --root ROOT

A tar, some thousand pictures of a folder, or a parquet file with pictures becomes a unit. First all rows become samples
or rejects and the plan is published; then each picture is read once, where it lies, and measured. It may be killed at
any moment and run again: finished work is not repeated. What cannot be read is named, the rest goes on, and a later run
takes it once it is repaired.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from curation.adopt.captions import Captions, read_captions
from curation.adopt.inputs import Input, end_input, parse_input, read_rows
from curation.adopt.listing import Listing, list_folder
from curation.adopt.names import full_path
from curation.adopt.news import find_new
from curation.adopt.picture_files import PictureFiles
from curation.adopt.planning import Keys, choose_rows, describe_plan, list_keys, write_unit
from curation.errors import UserError
from curation.plan import ADOPTED, describe_spread, read_plans
from curation.progress import bar
from curation.storage import Root, fingerprint
from curation.sums.recorder import sealing
from curation.tables import downloads_file, plan_file
from curation.terminal import write_error

NUM_NAMED = 20
"""Refused files and notes that are named one by one; of more, their number is said."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def adopt(
    root: Root, folders: Sequence[str], captions_file: str = "", columns: Mapping[str, str] | None = None
) -> None:
    """Adopt everything in `folders` that `root` does not hold yet.

    `captions_file` has captions of pictures that are files. `columns` says which of its columns, or without it of the
    columns of parquet files with pictures, are `image`, `caption` and `url`.

    Raises UserError at the end when something could not be adopted, and before anything is written when nothing could.
    """
    captions = read_captions(captions_file, columns or {}) if captions_file else Captions()
    left_out = full_path(captions_file) if captions_file else ""
    of_tables = {} if captions_file else columns or {}
    bases = list(dict.fromkeys(map(full_path, folders)))
    listings = [list_folder(root, base, of_tables, left_out) for base in bases]
    if root.exists("root.json"):
        root.check_format()
    news = find_new(root, listings, captions)
    keys, notes, unreadable = _read_all_keys(root, news.inputs)
    if all(isinstance(item, PictureFiles) and not item.pictures for item, _ in keys):
        keys = []  # a folder's other files alone make no plan
    refusals = list(dict.fromkeys([*(one for each in listings for one in each.refusals), *news.changed, *unreadable]))
    if keys or not refusals:
        root.create(sealed=True)
    if root.exists("root.json"):
        with sealing(root, ("plans", "samples", "rejects", "listings", "downloads")) as recording:
            if keys:
                write_error(describe_spread(_publish_plan(recording, keys)))
            elif not refusals:
                write_error(f"Nothing is new since the last adoption: {root.base} has it all.\n")
            refusals += _end_units(recording)
    _tell([*(note for each in listings for note in each.notes), *news.notes, *notes])
    if refusals:
        _tell(refusals)
        raise _not_adopted(root, len(refusals), _count_files(listings))


def _count_files(listings: Sequence[Listing]) -> int:
    return sum(len(one.shards) + len(one.tables) + len(one.pictures) + len(one.refusals) for one in listings)


def _not_adopted(root: Root, number: int, num_files: int) -> UserError:
    others = f"the others are in {root.base}" if number < num_files else "nothing was written"
    return UserError(
        f"{number:,} of {num_files:,} files could not be adopted and are named above; {others}. "
        f"Repair them and run the same command again."
    )


def _tell(sentences: Sequence[str]) -> None:
    for sentence in sentences[:NUM_NAMED]:
        write_error(f"{sentence}\n")
    if len(sentences) > NUM_NAMED:
        write_error(f"… and {len(sentences) - NUM_NAMED:,} more of this kind.\n")


def list_unfinished(root: Root) -> dict[str, Input]:
    """Adopted units whose pictures were not read yet, each with its input."""
    missing = set(root.missing_units("downloads"))
    return {unit: item for unit, item in _list_adopted(root) if unit in missing}


def _list_adopted(root: Root) -> Iterator[tuple[str, Input]]:
    for plan in read_plans(root):
        if plan.get(ADOPTED):
            for number, one in enumerate(plan["inputs"]):
                yield f"{plan['batch']}-{number:06d}", parse_input(one)


def _read_all_keys(root: Root, fresh: Sequence[Input]) -> tuple[list[tuple[Input, Keys]], list[str], list[str]]:
    """Each input that can be read with its keys, notes on what of them could not, and a sentence for each other one."""
    keys, notes, refusals = list[tuple[Input, Keys]](), list[str](), list[str]()
    found = _map_in_threads("read shards", fresh, lambda item: _try(item.path, lambda: _read_keys(root, item)))
    for item, result in zip(fresh, found, strict=True):
        if isinstance(result, str):
            refusals.append(result)
        else:
            keys.append((item, result[0]))
            notes += result[1]
    return keys, notes, refusals


def _try(path: str, function: Callable[[], Result]) -> Result | str:
    """What `function` returns, or the sentence of what `path` could not be read for."""
    try:
        return function()
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror or error or type(error).__name__})."


def _read_keys(root: Root, item: Input) -> tuple[Keys, tuple[str, ...]]:
    rows = read_rows(root, item)
    return list_keys(rows), rows.notes


def _publish_plan(root: Root, keys: list[tuple[Input, Keys]]) -> dict[str, Any]:
    """Publish samples and rejects of all new inputs, then the plan that makes them count."""
    number, fresh = len(read_plans(root)), [item for item, _ in keys]
    batch = fingerprint([[[item.path, item.fingerprint] for item in fresh], number])[:8]
    kept = choose_rows(root, [keys_of_input for _, keys_of_input in keys])
    num_captions = max(keys_of_input.num_captions for _, keys_of_input in keys)
    work = [(f"{batch}-{i:06d}", item, kept[i]) for i, item in enumerate(fresh)]
    written = _map_in_threads(
        "adopt shards",
        work,
        lambda one: write_unit(root, one[0], one[1], read_rows(root, one[1]), one[2], num_captions),
    )
    described = list(written)
    plan = {"batch": batch, "number": number, **describe_plan(fresh, described)}
    root.publish_json(plan_file(batch), plan)
    without = sum(one["without_caption"] for one in described)
    if without:
        write_error(f"{without:,} of {plan['totals']['samples']:,} rows have no caption.\n")
    return plan


def _map_in_threads(desc: str, items: Sequence[Item], function: Callable[[Item], Result]) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`, from threads: they read and hash side by side."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar(len(items), desc, "shard") as progress:
        try:
            for result in pool.map(function, items):
                progress.update()
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_units(root: Root) -> list[str]:
    """Read the pictures of every adopted unit that has no file in downloads; a sentence for each that cannot be."""
    work = list(list_unfinished(root).items())
    ended = _map_in_threads(
        "read pictures", work, lambda one: _try(one[1].path, lambda: _end_unit(root, one[0], one[1]))
    )
    return [result for result in ended if result]


def _end_unit(root: Root, unit: str, item: Input) -> None:
    if not root.exists(downloads_file(unit)):
        end_input(root, unit, item)
