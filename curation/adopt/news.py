"""What of the listed folders is new to a root, and what has changed since it was adopted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from curation.adopt.captions import CaptionLine, Captions
from curation.adopt.inputs import Input
from curation.adopt.listing import Listing
from curation.adopt.picture_files import PictureFiles, name_stray, split_into_units
from curation.adopt.picture_table import PictureTable
from curation.adopt.shard import Shard
from curation.download.tombstones import hide_name
from curation.places import PICTURE_FOLDER
from curation.plan import ADOPTED, read_plans
from curation.storage import Root, fingerprint
from curation.tables import listings_file

NUM_SHOWN = 5


@dataclass
class News:
    """Inputs that no plan holds, and sentences: of what has changed, and notes on what else was seen."""

    inputs: list[Input] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_new(root: Root, listings: Sequence[Listing], captions: Captions) -> News:
    """Compare `listings` with the plans of `root`; each row of `captions` goes to the picture that it names."""
    news, known, files = News(), _read_known_inputs(root), _read_known_files(root)
    for listing in listings:
        items: list[Shard | PictureTable] = [*listing.shards, *listing.tables]
        for item in items:
            if item.path not in known:
                news.inputs.append(item)
            elif known[item.path] != item.fingerprint:
                news.changed.append(_say_changed(root, item.path))
    lines = [captions.take(listing.folder, listing.pictures) for listing in listings]
    strays = captions.take_strays()
    for listing, of_picture in zip(listings, lines, strict=True):
        units = _find_new_files(root, news, listing, files.get(listing.folder, {}), of_picture, strays)
        strays = () if units else strays
        news.inputs += units
    return news


def _read_known_inputs(root: Root) -> dict[str, str]:
    """The fingerprint of every tar and parquet file that was adopted, by its path."""
    inputs = [one for plan in read_plans(root) if plan.get(ADOPTED) for one in plan["inputs"]]
    return {one["path"]: one["fingerprint"] for one in inputs if one.get("format") != PICTURE_FOLDER}


def _read_known_files(root: Root) -> dict[str, dict[str, str]]:
    """The fingerprint of every file that was adopted as one, by its folder and its path there."""
    found: dict[str, dict[str, str]] = {}
    for plan in read_plans(root):
        for number, one in enumerate(plan["inputs"]) if plan.get(ADOPTED) else ():
            if one.get("format") == PICTURE_FOLDER:
                rel = listings_file(f"{plan['batch']}-{number:06d}")
                if not root.exists(rel) and root.expected(rel) is None:
                    continue  # earlier versions of `curate forget` and `curate sample` left out those of empty units
                table = root.read_parquet(rel)
                names, prints = (table[name].to_pylist() for name in ("file", "fingerprint"))
                found.setdefault(one["path"], {}).update(zip(names, prints, strict=True))
    return found


def _find_new_files(
    root: Root,
    news: News,
    listing: Listing,
    known: Mapping[str, str],
    lines: Mapping[str, tuple[CaptionLine, ...]],
    strays: Iterable[CaptionLine],
) -> list[PictureFiles]:
    """Units of the pictures that are new. Other files and rows without a picture are accounted for with the first."""
    known = {**known, **{n: known[hide_name(n)] for n in listing.pictures if hide_name(n) in known}}
    pictures = []
    for name, one in listing.pictures.items():
        if name not in known:
            pictures.append(replace(one, lines=lines.get(name, ())))
        elif known[name] != one.fingerprint:
            news.changed.append(_say_changed(root, f"{listing.folder}/{name}"))
    others = {name: size for name, size in listing.others.items() if name not in known}
    new_strays = [one for one in strays if known.get(name_stray(one)) != fingerprint([one.name])]
    if not (pictures or news.inputs):
        return []
    again = sum(len(lines[name]) for name in lines if name in known)
    if again:
        news.notes.append(f"{again:,} rows of captions name pictures that were adopted before: these keep theirs.")
    if others:
        shown = ", ".join(sorted(others)[:NUM_SHOWN]) + (" …" if len(others) > NUM_SHOWN else "")
        news.notes.append(
            f"{listing.folder}: {len(others):,} files are no pictures and belong to none ({shown}): each is a row of "
            f"rejects with reason no_picture."
        )
    if new_strays:
        news.notes.append(
            f"{len(new_strays):,} rows of captions name no picture that is there: each is a row of rejects."
        )
    return split_into_units(listing.source, listing.folder, pictures, others, new_strays)


def _say_changed(root: Root, path: str) -> str:
    return f"{path} has changed since it was adopted into {root.base}: adopt it into a new root."
