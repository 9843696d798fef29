"""The demo's metadata: the true schemas, the dirt of the real files, the same bytes every time; its pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.demo import metadata
from curation.demo.faults import FAULTS
from curation.demo.web import FOLDER, picture_bytes, picture_size, pictures
from curation.recipe.config import load_recipe
from curation.schema import Status, uid
from curation.sources import detect_format

# CURATION.md: LAION-2B joined, COYO-700M, CommonPool.
COLUMNS = {
    "laion2b": "URL TEXT WIDTH HEIGHT similarity hash punsafe pwatermark",
    "coyo": "id url text width height image_phash text_length word_count num_tokens_bert num_tokens_gpt num_faces "
    "clip_similarity_vitb32 clip_similarity_vitl14 nsfw_score_opennsfw2 nsfw_score_gantman watermark_score "
    "aesthetic_score_laion_v2",
    "commonpool": "uid url text original_width original_height clip_b32_similarity_score clip_l14_similarity_score "
    "face_bboxes sha256",
}
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("meta")
    metadata.write_metadata(folder)
    return {name: pq.read_table(folder / file).to_pylist() for name, file in metadata.FILES.items()}


def test_the_files_have_the_true_columns_and_are_recognised(tmp_path: Path) -> None:
    metadata.write_metadata(tmp_path)
    for name, file in metadata.FILES.items():
        names = pq.read_schema(tmp_path / file).names
        wanted = "laion2b" if name == "laion" else name
        assert names == COLUMNS[wanted].split()
        assert detect_format(names, file) == wanted


def test_two_writes_give_the_same_bytes_and_a_second_one_leaves_files_alone(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        metadata.write_metadata(tmp_path / folder)
    found = [{p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in ("one", "two")]
    assert found[0] == found[1]
    assert set(found[0]) == set(metadata.FILES.values())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "one").iterdir()}
    metadata.write_metadata(tmp_path / "one")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "one").iterdir()} == before


def test_the_dirt_of_the_real_files_is_there(rows: Rows) -> None:
    laion, coyo = rows["laion"], rows["coyo"]
    assert any(row["TEXT"] is None and row["URL"] for row in laion)
    assert any(row["text"] is None for row in coyo)
    assert {None, ""} <= {row["URL"] for row in laion}
    assert max(row["similarity"] for row in laion) == 6016
    assert {(0, 0), (None, None)} <= {(row["WIDTH"], row["HEIGHT"]) for row in laion}
    assert any(row["punsafe"] > 0.5 for row in laion)
    assert any(row["pwatermark"] > 0.8 for row in laion)
    assert sum(caption in {row["TEXT"] for row in laion} for caption in metadata.FOREIGN) == 3
    repeated = [key for key, n in Counter((row["URL"], row["TEXT"]) for row in laion).items() if n > 1]
    assert len(repeated) == 10
    urls = Counter(row["URL"] for row in laion if (row["URL"], row["TEXT"]) not in repeated)
    assert max(urls.values()) > 1  # one picture, two captions


def test_claimed_sizes_are_true_except_where_they_are_exchanged(rows: Rows) -> None:
    claimed = [(row["URL"], row["WIDTH"], row["HEIGHT"]) for row in rows["laion"] if row["URL"] and row["WIDTH"]]
    sizes = {name: picture_size(name) for name, _ in pictures()}
    known = [(sizes[url.rpartition("/")[2]], (w, h)) for url, w, h in claimed if url.rpartition("/")[2] in sizes]
    wrong = [(true, said) for true, said in known if true != said]
    assert len(known) > 150
    assert wrong and all(true == said[::-1] for true, said in wrong)


def test_copies_lie_across_sources(rows: Rows) -> None:
    own = {row["URL"].rpartition("/")[2] for row in rows["laion"] if row["URL"]}
    kinds = Counter(row["url"].split("/")[4] for row in rows["coyo"] if "/copies/" in row["url"])
    assert kinds == {"exact": 10, "recompressed": 10, "shrunk": 10, "cropped": 10}
    assert all(row["url"].rpartition("/")[2] in own for row in rows["coyo"] if "/copies/" in row["url"])


def test_hosts_are_many_and_one_is_large(rows: Rows) -> None:
    urls = [row.get("URL", row.get("url")) for part in rows.values() for row in part]
    hosts = Counter(url.split("/")[2] for url in urls if url)
    assert len(hosts) > 20 and max(hosts.values()) > 60


def test_every_fault_has_a_row_whose_end_is_known(rows: Rows) -> None:
    expected = metadata.expected_statuses()
    pairs = [(row["URL"] or "", row["TEXT"]) for row in rows["laion"]]
    pairs += [(row["url"], row["text"]) for row in rows["commonpool"]]
    found = {url.split("/")[4]: uid(url, caption) for url, caption in pairs if "/faults/" in url}
    assert set(found) == set(FAULTS)
    assert {name: expected[key] for name, key in found.items()} == {f.name: f.status for f in FAULTS.values()}
    assert {Status.DNS, Status.UNSUPPORTED_SCHEME, Status.BLOCKED_ADDRESS} <= set(expected.values())


def test_the_recipe_of_the_demo_names_its_sources() -> None:
    assert [source.name for source in load_recipe("demo").sources] == list(metadata.FILES)


def test_two_hundred_pictures_are_small_and_attributed() -> None:
    shown = pictures()
    attribution = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert len(shown) >= 200
    assert sum(len(picture_bytes(name)) for name, _ in shown) <= 6_000_000
    assert all(min(picture_size(name)) >= 64 and caption for name, caption in shown)
    assert "openclipart" in attribution and "public domain" in attribution.lower()
