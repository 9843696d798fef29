"""A pool of pairs with known harm, made of Flickr8k, beside trusted pairs for a filter and held-back pairs.

The shares were fixed before anything was trained. A third of the pool is as it should be, since the best filters of
DataComp (arXiv 2304.14108) keep about that share of the web. No photograph is in two of pool, trusted and held-back.

| kind | rows | what it is |
|---|---:|---|
| right | 5,612 | a photograph of `match_labels.tsv` with a caption that matches |
| wrong caption | 4,270 | the same photographs with captions of others, by the same file |
| near-duplicate | 3,500 | altered copies of 100 right pairs, most of a few of them (Zipf), with the same caption |
| blurred | 900 | another photograph, blurred by 4 to 10 of 160 pixels, with its caption |
| tiny | 900 | another photograph, of 16 to 40 pixels, with its caption |
| boilerplate | 1,000 | another photograph with a file name, a placeholder or a phrase of a shop as caption |
| text | 700 | another photograph under an advertisement, which is the caption |
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

RIGHT, WRONG, COPY = "right", "wrong caption", "near-duplicate"
DAMAGES = {"blurred": 900, "tiny": 900, "boilerplate": 1_000, "text": 700}
"""Kind → rows, of photographs that are in no other part."""
KINDS = (RIGHT, WRONG, COPY, *DAMAGES)
NUM_COPIES, NUM_COPIED = 3_500, 100
NUM_HELD, NUM_DAMAGED = 500, 700
"""Photographs."""
TRUTH, CAPTIONS, HELD = "truth.json", "captions.csv", "held.tsv"
_PHRASES = ("Free shipping on all orders", "Click here for more", "Share this on your wall", "Add to cart")
_WORDS = ("SALE", "50% OFF", "BUY NOW", "NEW 2024", "SHOP", "BEST PRICE", "ORDER TODAY", "LIMITED OFFER")


@dataclass(frozen=True)
class Photographs:
    """The captions of each file, and the labelled pairs: (file, caption) → whether they match."""

    images: Path
    captions: Mapping[str, Sequence[str]]
    labels: Mapping[tuple[str, str], bool]


def read_photographs(folder: Path) -> Photographs:
    """What `folder` has: images/, captions_en.tsv and match_labels.tsv."""
    captions = dict[str, list[str]]()
    for file, _, caption in _read_rows(folder / "captions_en.tsv"):
        captions.setdefault(file, []).append(caption)
    labels = {(file, caption): label == "match" for file, caption, label in _read_rows(folder / "match_labels.tsv")}
    return Photographs(folder / "images", captions, labels)


def _read_rows(path: Path) -> Iterator[list[str]]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            yield line.split("\t")


def make_pool(photographs: Photographs, folder: Path, scale: float = 1.0) -> None:
    """Write pictures/pool, pictures/trusted, CAPTIONS, HELD, and TRUTH last: [file, caption, kind] of each pool row.

    `scale` is the share of the numbers of this module that is taken, which tests make small.
    """
    rng = np.random.default_rng(0)
    labelled = sorted({file for file, _ in photographs.labels})
    others = sorted(set(photographs.captions) - set(labelled))
    rng.shuffle(others)
    num_held, num_damaged = round(NUM_HELD * scale), round(NUM_DAMAGED * scale)
    held, damaged, trusted = np.split(np.array(others), [num_held, num_held + num_damaged])
    for name in ("pool", "trusted"):
        (folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
    pool = folder / "pictures" / "pool"
    rows = [*_copy_labelled(photographs, labelled, pool)]
    right = [row for row in rows if row[2] == RIGHT]
    rows += _write_copies(photographs, right, pool, rng, scale)
    rows += _write_damaged(photographs, [*map(str, damaged)], pool, rng, scale)
    trusted_rows = [(file, caption) for file in map(str, trusted) for caption in photographs.captions[file]]
    for file in map(str, trusted):
        shutil.copyfile(photographs.images / file, folder / "pictures" / "trusted" / file)
    with open(folder / CAPTIONS, "w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink)
        writer.writerow(("image", "caption"))
        writer.writerows([*((file, caption) for file, caption, _ in rows), *trusted_rows])
    lines = [f"{photographs.images / f}\t{c}\n" for f in sorted(map(str, held)) for c in photographs.captions[f]]
    (folder / HELD).write_text("".join(lines), encoding="utf-8")
    (folder / TRUTH).write_text(json.dumps(rows))


Row = tuple[str, str, str]
"""File, caption, kind."""


def _copy_labelled(photographs: Photographs, files: Sequence[str], pool: Path) -> Iterator[Row]:
    chosen = set(files)
    for file in files:
        shutil.copyfile(photographs.images / file, pool / file)
    for (file, caption), match in photographs.labels.items():
        if file in chosen:
            yield file, caption, RIGHT if match else WRONG


def _write_copies(
    photographs: Photographs, right: Sequence[Row], pool: Path, rng: np.random.Generator, scale: float
) -> Iterator[Row]:
    """Altered copies of some right pairs. They are smaller, so that the original is the one to keep."""
    chosen = rng.permutation(len(right))[: round(NUM_COPIED * scale)]
    weights = 1 / np.arange(1, len(chosen) + 1)
    counts = rng.multinomial(round(NUM_COPIES * scale), weights / weights.sum())
    number = 0
    for place, count in zip(chosen, counts, strict=True):
        file, caption, _ = right[place]
        for _ in range(count):
            name, number = f"copy-{number:05d}.jpg", number + 1
            _save(alter(_open(photographs, file), rng), pool / name, int(rng.integers(40, 91)))
            yield name, caption, COPY


def _write_damaged(
    photographs: Photographs, files: Sequence[str], pool: Path, rng: np.random.Generator, scale: float
) -> Iterator[Row]:
    pairs = [(file, caption) for file in files for caption in photographs.captions[file]]
    rng.shuffle(pairs)
    kinds = [kind for kind, count in DAMAGES.items() for _ in range(round(count * scale))]
    for number, (kind, (file, caption)) in enumerate(zip(kinds, pairs, strict=False)):
        picture, said = DAMAGE[kind](_open(photographs, file), caption, rng)
        name = f"{kind}-{number:05d}.jpg"
        _save(picture, pool / name, 90)
        yield name, said, kind


def alter(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A copy as reposts are: up to 4 % cut off each side, scaled down, brighter or darker."""
    left, top, right, bottom = (rng.random(4) * 0.04 * picture.width).tolist()
    side = int(rng.integers(100, 157))
    cut = picture.resize((side, side), box=(left, top, picture.width - right, picture.height - bottom))
    return ImageEnhance.Brightness(cut).enhance(rng.uniform(0.8, 1.2))


def _blur(picture: Image.Image, caption: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(4, 10))), caption


def _shrink(picture: Image.Image, caption: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
    side = int(rng.integers(16, 41))
    return picture.resize((side, side)), caption


def _say_nothing(picture: Image.Image, caption: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
    number = int(rng.integers(10_000))
    said = (f"IMG_{number:04d}.jpg", f"DSC{number:05d}", "image", "untitled", "product photo", *_PHRASES)
    return picture, said[int(rng.integers(len(said)))]


def _advertise(picture: Image.Image, caption: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
    """Three lines of text over the picture, which are the caption too."""
    words = [_WORDS[place] for place in rng.permutation(len(_WORDS))[:3]]
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(22)
    for line, word in enumerate(words):
        draw.text((6, 12 + 48 * line), word, (255, 255, 0), font, stroke_width=2, stroke_fill=(0, 0, 0))
    return picture, " ".join(words)


DAMAGE: dict[str, Callable[[Image.Image, str, np.random.Generator], tuple[Image.Image, str]]] = {
    "blurred": _blur,
    "tiny": _shrink,
    "boilerplate": _say_nothing,
    "text": _advertise,
}


def _open(photographs: Photographs, file: str) -> Image.Image:
    return Image.open(io.BytesIO((photographs.images / file).read_bytes())).convert("RGB")


def _save(picture: Image.Image, path: Path, quality: int) -> None:
    picture.save(path, "JPEG", quality=quality)
