"""Metadata of the demo in the true schemas of LAION-2B (joined), COYO-700M and CommonPool, dirt included.

`write_metadata(folder)` writes three parquet files, with the same bytes on every run; `expected_statuses()` gives the
status of each row that meets a fault.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.demo.faults import FAULTS
from curation.demo.web import COPIES, picture_bytes, picture_size, pictures
from curation.schema import Status, uid

FILES = {"laion": "laion2b.parquet", "coyo": "coyo.parquet", "commonpool": "commonpool.parquet"}
NUM_HOSTS = 23
LAION = pa.schema(
    {
        "URL": pa.string(),
        "TEXT": pa.string(),
        "WIDTH": pa.int32(),
        "HEIGHT": pa.int32(),
        "similarity": pa.float64(),
        "hash": pa.int64(),
        "punsafe": pa.float32(),
        "pwatermark": pa.float32(),
    }
)
COYO = pa.schema(
    {
        "id": pa.int64(),
        "url": pa.string(),
        "text": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "image_phash": pa.string(),
        "text_length": pa.int32(),
        "word_count": pa.int32(),
        "num_tokens_bert": pa.int32(),
        "num_tokens_gpt": pa.int32(),
        "num_faces": pa.int32(),
        "clip_similarity_vitb32": pa.float32(),
        "clip_similarity_vitl14": pa.float32(),
        "nsfw_score_opennsfw2": pa.float32(),
        "nsfw_score_gantman": pa.float32(),
        "watermark_score": pa.float32(),
        "aesthetic_score_laion_v2": pa.float32(),
    }
)
COMMONPOOL = pa.schema(
    {
        "uid": pa.string(),
        "url": pa.string(),
        "text": pa.string(),
        "original_width": pa.int64(),
        "original_height": pa.int64(),
        "clip_b32_similarity_score": pa.float32(),
        "clip_l14_similarity_score": pa.float32(),
        "face_bboxes": pa.list_(pa.list_(pa.float64())),
        "sha256": pa.string(),
    }
)
FOREIGN = (
    "ein altes Haus am Rand des Dorfes mit einem großen Garten",
    "un dessin d'une voiture rouge dans la rue devant la maison",
    "рисунок маленькой собаки, которая бежит по зелёной траве",
)
Row = dict[str, Any]


def _url(number: int, path: str) -> str:
    """A third of the pictures lie on one large host, the others on many."""
    host = "img.bigshop.example" if number % 3 == 0 else f"www{number % 2}.site{number % NUM_HOSTS}.example"
    return f"http://{host}/{path}"


def _fault_url(name: str, file: str) -> str:
    return f"http://{FAULTS[name].host}/faults/{name}/{file}"


def _size(url: str | None) -> tuple[int, int]:
    """Width and height of the picture that `url` names, (256, 256) where it names none."""
    name = (url or "").rpartition("/")[2]
    return picture_size(name) if name in dict(pictures()) else (256, 256)


def _share(*key: object) -> float:
    """A number in [0, 1) that depends on `key` alone."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big") / 2**32


def _laion_row(url: str | None, caption: str | None, **changes: object) -> Row:
    key = f"{url}{caption}"
    digest = hashlib.sha256(key.encode()).digest()
    width, height = _size(url)
    row: Row = {"URL": url, "TEXT": caption, "WIDTH": width, "HEIGHT": height, "similarity": 0.28 + 0.1 * _share(key)}
    row |= {"hash": int.from_bytes(digest[:8], "big", signed=True)}
    return row | {"punsafe": 0.1 * _share(key, "u"), "pwatermark": 0.5 * _share(key, "w")} | changes


def _coyo_row(number: int, url: str, caption: str | None, **changes: object) -> Row:
    words = (caption or "").split()
    width, height = _size(url)
    row: Row = {"id": 10_000_000 + number, "url": url, "text": caption, "width": width, "height": height}
    row |= {"image_phash": hashlib.sha256(url.encode()).hexdigest()[:16], "text_length": len(caption or "")}
    row |= {"word_count": len(words), "num_tokens_bert": len(words) + 2, "num_tokens_gpt": len(words) + 1}
    row |= {"num_faces": 0, "clip_similarity_vitb32": 0.26 + 0.1 * _share(url), "nsfw_score_gantman": 0.01}
    row |= {"clip_similarity_vitl14": 0.2 + 0.1 * _share(url, 14), "nsfw_score_opennsfw2": 0.1 * _share(url, "u")}
    row |= {"watermark_score": 0.5 * _share(url, "w"), "aesthetic_score_laion_v2": 4 + 2 * _share(url, "a")}
    return row | changes


def laion_rows() -> list[Row]:
    """Two thirds of the pictures, every fault, and the dirt that the real files have."""
    shown = pictures()
    rows = [_laion_row(_url(n, f"pictures/{name}"), caption) for n, (name, caption) in enumerate(shown) if n % 3 < 2]
    own = [pair for n, pair in enumerate(shown) if n % 3 < 2]
    # Faults serve pictures that only the second source has, so that they are no duplicates within this one.
    spare = [pair for n, pair in enumerate(shown) if n % 3 == 2]
    for (name, caption), fault in zip(spare, (f for f in FAULTS if f != "other_bytes"), strict=False):
        rows.append(_laion_row(_fault_url(fault, name), f"{caption}, {fault.replace('_', ' ')}"))
    first, second, third, fourth, fifth = (f"http://www.dirt.example/pictures/{name}" for name, _ in own[:5])
    rows += [
        _laion_row(first, None),
        _laion_row(second, own[1][1], similarity=6016.0),
        _laion_row(third, own[2][1], WIDTH=0, HEIGHT=0),
        _laion_row(fourth, own[3][1], WIDTH=None, HEIGHT=None),
        _laion_row(fifth, own[4][1], WIDTH=_size(fifth)[1], HEIGHT=_size(fifth)[0]),
        _laion_row(first, "IMG_0001.JPG"),
        _laion_row(None, "a row that lost its address"),
        _laion_row("", "a row whose address is empty"),
        _laion_row("file:///etc/hostname", "a row that points at a local file"),
        _laion_row("http://nowhere.invalid/pictures/a.jpg", "a row whose host does not exist"),
        _laion_row("http://10.1.2.3/pictures/a.jpg", "a row that points into a private network"),
    ]
    rows += [dict(row) for row in rows[5:15]]  # the same rows once more
    rows += [_laion_row(rows[n]["URL"], text) for n, text in zip((20, 21, 22), FOREIGN, strict=True)]
    for n, column in ((60, "punsafe"), (61, "punsafe"), (62, "pwatermark"), (63, "pwatermark")):
        rows[n][column] = 0.95
    return rows


def coyo_rows() -> list[Row]:
    """The last third of the pictures, and copies of the first source's."""
    shown = pictures()
    rows = [_coyo_row(n, _url(n, f"pictures/{name}"), caption) for n, (name, caption) in enumerate(shown) if n % 3 == 2]
    copied = [pair for n, pair in enumerate(shown) if n % 3 < 2][:40]
    for n, (name, caption) in enumerate(copied):
        kind = list(COPIES)[n % len(COPIES)]
        rows.append(
            _coyo_row(1_000 + n, f"http://cdn{n % 5}.mirror.example/copies/{kind}/{name}", f"{caption}, {kind}")
        )
    rows.append(_coyo_row(2_000, f"http://cdn0.mirror.example/pictures/{shown[0][0]}", None))
    url = f"http://cdn0.mirror.example/pictures/{shown[3][0]}"
    rows.append(_coyo_row(2_001, url, shown[3][1], width=240, height=25_600))
    return rows


def commonpool_rows() -> list[Row]:
    """A few pictures with the sha256 of their bytes, one of which has changed since."""
    rows = []
    for n, (name, caption) in enumerate(pictures()[:6]):
        data = picture_bytes(name)
        url = _fault_url("other_bytes", name) if n == 0 else f"http://www.pool.example/pictures/{name}"
        row: Row = {"uid": hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()}
        row |= {"url": url, "text": f"{caption} pool"}
        width, height = picture_size(name)
        row |= {"original_width": width, "original_height": height, "clip_b32_similarity_score": 0.3}
        row |= {"clip_l14_similarity_score": 0.25, "face_bboxes": [], "sha256": hashlib.sha256(data).hexdigest()}
        rows.append(row)
    return rows


def expected_statuses() -> dict[str, Status]:
    """uid → status of every row that meets a fault; all other rows end as ok, or are rejected."""
    statuses: dict[str, Status] = {}
    plain = {
        "file:///etc/hostname": Status.UNSUPPORTED_SCHEME,
        "http://nowhere.invalid/pictures/a.jpg": Status.DNS,
        "http://10.1.2.3/pictures/a.jpg": Status.BLOCKED_ADDRESS,
    }
    pairs = [(row["URL"], row["TEXT"]) for row in laion_rows()] + [(r["url"], r["text"]) for r in commonpool_rows()]
    for url, caption in pairs:
        if url in plain:
            statuses[uid(url, caption)] = plain[url]
        elif url and "/faults/" in url:
            statuses[uid(url, caption)] = FAULTS[url.split("/")[4]].status
    return statuses


def write_metadata(folder: Path) -> None:
    """Write those of the three files that `folder` does not have yet."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"laion": (laion_rows, LAION), "coyo": (coyo_rows, COYO), "commonpool": (commonpool_rows, COMMONPOOL)}
    for name, (rows, schema) in tables.items():
        path = folder / FILES[name]
        if not path.exists():
            half = path.with_suffix(".part")
            pq.write_table(pa.Table.from_pylist(rows(), schema=schema), half)
            half.rename(path)
