"""Adopt what other tools wrote: pictures stay where they are, and the root's tables point to them.

    curate adopt DIR… --root ROOT

A shard becomes a unit. First all rows become samples or rejects and the plan is published; then each picture is read
once, where it lies, and measured. It may be killed at any moment and run again: finished work is not repeated. What
cannot be read is named, the rest goes on, and a later run takes it once it is repaired.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from curation.adopt.folder import read_rows
from curation.adopt.listing import list_shards
from curation.adopt.pictures import end_unit
from curation.adopt.planning import Keys, choose_rows, describe_plan, list_keys, write_unit
from curation.adopt.shard import Shard
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


def adopt(root: Root, folders: Sequence[str]) -> None:
    """Adopt every shard of `folders` that `root` does not hold yet.

    Raises UserError at the end when something could not be adopted, and before anything is written when nothing could.
    """
    listings = [list_shards(root, folder) for folder in folders]
    shards = list({shard.path: shard for listing in listings for shard in listing.shards}.values())
    refusals = list(dict.fromkeys(refusal for listing in listings for refusal in listing.refusals))
    num_files = len(shards) + len(refusals)
    if root.exists("root.json"):
        root.check_format()
    fresh, changed = _list_new_shards(root, shards)
    keys, notes, unreadable = _read_all_keys(root, fresh)
    refusals += changed + unreadable
    if keys or not refusals:
        root.create(sealed=True)
    if root.exists("root.json"):
        with sealing(root, ("plans", "samples", "rejects", "downloads")) as recording:
            if keys:
                write_error(describe_spread(_publish_plan(recording, keys)))
            refusals += _end_units(recording)
    _tell(notes)
    if refusals:
        _tell(refusals)
        raise UserError(
            f"{len(refusals):,} of {num_files:,} files could not be adopted and are named above; "
            f"{f'the others are in {root.base}' if len(refusals) < num_files else 'nothing was written'}. "
            f"Repair them and run the same command again."
        )


def _tell(sentences: Sequence[str]) -> None:
    for sentence in sentences[:NUM_NAMED]:
        write_error(f"{sentence}\n")
    if len(sentences) > NUM_NAMED:
        write_error(f"… and {len(sentences) - NUM_NAMED:,} more of this kind.\n")


def list_unfinished(root: Root) -> dict[str, Shard]:
    """Adopted units whose pictures were not read yet, each with its shard."""
    missing = set(root.missing_units("downloads"))
    return {unit: shard for unit, shard in _list_adopted(root) if unit in missing}


def _list_adopted(root: Root) -> Iterator[tuple[str, Shard]]:
    for plan in read_plans(root):
        if plan.get(ADOPTED):
            shards_of = [Shard(source=i["source"], path=i["path"]) for i in plan["inputs"]]
            yield from ((f"{plan['batch']}-{number:06d}", shard) for number, shard in enumerate(shards_of))


def _list_new_shards(root: Root, shards: list[Shard]) -> tuple[list[Shard], list[str]]:
    """The shards that no plan holds, and a sentence for each that has changed since it was adopted."""
    known = {i["path"]: i["fingerprint"] for plan in read_plans(root) if plan.get(ADOPTED) for i in plan["inputs"]}
    changed = [
        f"{shard.path} has changed since it was adopted into {root.base}: adopt it into a new root."
        for shard in shards
        if known.get(shard.path, shard.fingerprint) != shard.fingerprint
    ]
    return [shard for shard in shards if shard.path not in known], changed


def _read_all_keys(root: Root, fresh: Sequence[Shard]) -> tuple[list[tuple[Shard, Keys]], list[str], list[str]]:
    """Each shard that can be read with its keys, notes on what of them could not, and a sentence for each other one."""
    keys, notes, refusals = list[tuple[Shard, Keys]](), list[str](), list[str]()
    found = _map_in_threads("read shards", fresh, lambda shard: _try(shard.path, lambda: _read_keys(root, shard)))
    for shard, result in zip(fresh, found, strict=True):
        if isinstance(result, str):
            refusals.append(result)
        else:
            keys.append((shard, result[0]))
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


def _read_keys(root: Root, shard: Shard) -> tuple[Keys, tuple[str, ...]]:
    rows = read_rows(root, shard)
    return list_keys(rows), rows.notes


def _publish_plan(root: Root, keys: list[tuple[Shard, Keys]]) -> dict[str, Any]:
    """Publish samples and rejects of all new shards, then the plan that makes them count."""
    number, fresh = len(read_plans(root)), [shard for shard, _ in keys]
    batch = fingerprint([[[shard.path, shard.fingerprint] for shard in fresh], number])[:8]
    kept = choose_rows(root, [keys_of_shard for _, keys_of_shard in keys])
    num_captions = max(keys_of_shard.num_captions for _, keys_of_shard in keys)
    work = [(f"{batch}-{i:06d}", shard, kept[i]) for i, shard in enumerate(fresh)]
    written = _map_in_threads(
        "adopt shards",
        work,
        lambda item: write_unit(root, item[0], item[1], read_rows(root, item[1]), item[2], num_captions),
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
        "read pictures", work, lambda item: _try(item[1].path, lambda: _end_unit(root, item[0], item[1]))
    )
    return [result for result in ended if result]


def _end_unit(root: Root, unit: str, shard: Shard) -> None:
    if not root.exists(downloads_file(unit)):
        end_unit(root, unit, read_rows(root, shard).table.to_pylist())
