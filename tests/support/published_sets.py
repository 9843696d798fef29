"""Three rows of published sets of metadata, in the kind of file and with the columns and types that they have.

The columns are those that these public files name; rows are invented, and their hosts are no hosts.

- cc3m, cc12m: rom1504/img2dataset, dataset_examples/cc3m.md and cc12m.md: TSV without a header, `caption url` and
  `url caption`; captions hold quotes that nothing closes, and CC12M has <PERSON> in place of names.
- sbu: rom1504/img2dataset, dataset_examples/SBUcaptions.md: one JSON document with a list a column, `image_urls` and
  `captions`; the archive has `user_names` too.
- laion_coco: rom1504/img2dataset, dataset_examples/laion-coco.md: URL, TEXT and the columns that are named there.
- laion_high_resolution: rom1504/img2dataset, dataset_examples/laion-high-resolution.md.
- datacomp1b: mlfoundations/datacomp, download_upstream.py (`url`, `text`, `face_bboxes`, `uid`) and
  baselines/apply_filter.py (the scores, `original_width`, `original_height`); `sha256` is on its data card.
- coyo_labeled: kakaobrain/coyo-dataset, subset/COYO-Labeled-300M/README.md, its table of attributes.
- cc2dataset: rom1504/cc2dataset, cc2dataset/main.py, process_one_part.
- relaion: the data card of laion/relaion2B-en-research-safe is gated; `url`, `caption`, `similarity`, `width`,
  `height` and `status` are what public scripts read of its files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

URLS = tuple(f"http://h.example/{number}.jpg" for number in (1, 2, 3))
TEXTS = ("a red door", '"So many', "<PERSON> on a bus")


@dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """The bytes of one file, and what the columns of samples must hold of its first row; captions of all three."""

    data: bytes
    captions: tuple[str | None, ...] = TEXTS
    first: Mapping[str, Any] = field(default_factory=dict)


def _write(**columns: tuple[pa.DataType, list[Any]]) -> bytes:
    table = pa.table({name: pa.array(values, dtype) for name, (dtype, values) in columns.items()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy")
    data: bytes = sink.getvalue().to_pybytes()
    return data


_S, _I32, _I64, _F32, _F64 = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64()
_SCORES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "similarity": (_F64, [0.3125, 6016.0, None]),
    "hash": (_I64, [-7, 8, 9]),
    "pwatermark": (_F32, [0.25, 0.5, None]),
    "punsafe": (_F32, [0.125, 1.5, None]),
}
_SIZES: dict[str, tuple[pa.DataType, list[Any]]] = {"WIDTH": (_I32, [2048, 0, 5]), "HEIGHT": (_I32, [1536, 5, None])}
_LAION = {"URL": (_S, list(URLS)), "TEXT": (_S, list(TEXTS)), **_SIZES, **_SCORES}
_SCORED = {"clip_similarity": 0.3125, "punsafe": 0.125, "pwatermark": 0.25, "source_id": "-7", "claimed_width": 2048}


def _write_lines(order: Callable[[str, str], tuple[str, str]]) -> bytes:
    return "".join("\t".join(order(url, text)) + "\n" for url, text in zip(URLS, TEXTS, strict=True)).encode()


SETS: dict[str, PublishedSet] = {
    "cc3m": PublishedSet(data=_write_lines(lambda url, text: (text, url))),
    "cc12m": PublishedSet(data=_write_lines(lambda url, text: (url, text))),
    "sbu": PublishedSet(
        data=json.dumps({"image_urls": URLS, "user_names": ("x", "y", "z"), "captions": TEXTS}).encode()
    ),
    "laion_coco": PublishedSet(
        data=_write(
            **_LAION,
            top_caption=(_S, ["a door", "people", "a person on a bus"]),
            all_captions=(pa.list_(_S), [["a door", "red"], ["people"], []]),
            all_similarities=(pa.list_(_F64), [[0.3, 0.2], [0.1], []]),
        ),
        captions=("a door", "people", "a person on a bus"),
        first=_SCORED,
    ),
    "laion_high_resolution": PublishedSet(
        data=_write(**_LAION, LANGUAGE=(_S, ["de", "en", None])), first=_SCORED | {"claimed_language": "de"}
    ),
    "datacomp1b": PublishedSet(
        data=_write(
            uid=(_S, ["f" * 32, "e" * 32, "d" * 32]),
            url=(_S, list(URLS)),
            text=(_S, list(TEXTS)),
            original_width=(_I64, [640, 5, 6]),
            original_height=(_I64, [480, 5, 6]),
            clip_b32_similarity_score=(_F32, [0.25, 0.2, 0.1]),
            clip_l14_similarity_score=(_F32, [0.5, 0.2, 0.1]),
            face_bboxes=(pa.list_(pa.list_(_F64)), [[[0.1, 0.2, 0.3, 0.4]], [], []]),
            sha256=(_S, ["ab" * 32, "cd" * 32, "ef" * 32]),
        ),
        first={"source_id": "f" * 32, "claimed_sha256": "ab" * 32, "claimed_width": 640, "clip_similarity_l14": 0.5},
    ),
    "coyo_labeled": PublishedSet(
        data=_write(
            id=(_I64, [315, 463, 601]),
            url=(_S, list(URLS)),
            imagehash=(_S, ["daf5a50aae4aa54a", "8f3fd06161c41e3e", "8e70855e6ba3f825"]),
            labels=(pa.list_(_I32), [[8087, 11054], [12213], [4945]]),
            label_probs=(pa.list_(_F32), [[0.4, 0.3], [0.7], [0.8]]),
            width=(_I32, [240, 219, 320]),
            height=(_I32, [240, 230, 240]),
        ),
        captions=(None, None, None),
        first={"source_id": "315", "claimed_phash": "daf5a50aae4aa54a", "claimed_height": 240},
    ),
    "cc2dataset": PublishedSet(
        data=_write(
            uid=(_S, ["0" * 32, "1" * 32, "2" * 32]),
            url=(_S, list(URLS)),
            alt=(_S, list(TEXTS)),
            cc_filename=(_S, ["CC-MAIN-1.warc.gz"] * 3),
            page_url=(_S, ["http://page.example/"] * 3),
        ),
        first={"source_id": "0" * 32},
    ),
    "relaion": PublishedSet(
        data=_write(
            url=(_S, list(URLS)),
            caption=(_S, list(TEXTS)),
            width=(_I32, [2048, 5, 6]),
            height=(_I32, [1536, 5, 6]),
            similarity=(_F64, [0.3125, 0.2, 0.1]),
            punsafe=(_F32, [0.125, 0.2, 0.1]),
            pwatermark=(_F32, [0.25, 0.2, 0.1]),
            key=(_S, ["000000001", "000000002", "000000003"]),
            status=(_S, ["success"] * 3),
        ),
        first={"claimed_width": 2048, "clip_similarity": 0.3125, "punsafe": 0.125, "pwatermark": 0.25},
    ),
}
"""Format → its file."""
