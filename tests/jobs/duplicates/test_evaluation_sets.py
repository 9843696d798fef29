"""How the entries of `dedupe.against` are looked up, and which are refused; none of this needs a session."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.errors import UserError
from jobs.duplicates.evaluation_sets import EvaluationSet, find_evaluation_sets
from tests.support.s3_server import CREDENTIALS, s3

JPEG = b"\xff\xd8\xff picture"


def write(folder: Path, *paths: str, data: bytes = JPEG) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def npy(folder: Path, path: str, array: np.ndarray) -> None:
    sink = io.BytesIO()
    np.save(sink, array)
    write(folder, path, data=sink.getvalue())


ALL = ("exact", "perceptual", "embedding")
MODEL = "efficientnet-lite0"


def found(
    folder: Path, *against: str, tiers: tuple[str, ...] = ALL, model: str = MODEL, dim: int | None = None
) -> list[EvaluationSet]:
    urls = [entry if "://" in entry else str(folder / entry) for entry in against]
    return find_evaluation_sets(urls, tiers, model, dim)


def paths(folder: Path, spec: str) -> tuple[str, list[str]]:
    (item,) = found(folder, spec)
    return item.name, [file.path for file in item.files]


@pytest.mark.parametrize(
    ("spec", "name", "wanted"),
    [
        ("coco", "coco", ["0.tar", "1.tar", "deep/a.JPEG", "deep/b.heic"]),
        ("coco/", "coco", ["0.tar", "1.tar", "deep/a.JPEG", "deep/b.heic"]),
        ("coco/deep", "deep", ["a.JPEG", "b.heic"]),
        ("coco/deep/a.JPEG", "deep", ["a.JPEG"]),
        ("coco/{0..1}.tar", "coco", ["0.tar", "1.tar"]),
        ("coco/*.tar", "coco", ["0.tar", "1.tar"]),
        ("{coco,odd[1]}/0.tar", "eval", ["coco/0.tar", "odd[1]/0.tar"]),
        ("c*/?.tar", "eval", ["coco/0.tar", "coco/1.tar"]),
        ("**/1.tar", "eval", ["coco/1.tar"]),
        ("coco/d*", "coco", ["deep/a.JPEG", "deep/b.heic"]),
        ("odd[1]", "odd[1]", ["0.tar"]),
    ],
)
def test_folders_files_and_patterns(tmp_path: Path, spec: str, name: str, wanted: list[str]) -> None:
    folder = tmp_path / "eval"
    write(folder, "coco/0.tar", "coco/1.tar", "coco/deep/a.JPEG", "coco/deep/b.heic", "coco/labels.json")
    write(folder, "odd[1]/0.tar", "odd1/0.tar", "other.txt")
    assert paths(folder, spec) == (name, wanted)


def test_a_folder_may_hold_every_kind(tmp_path: Path) -> None:
    write(tmp_path, "mix/a.jpg", "mix/annotations.tar", "mix/text_emb/text_emb_0.npy")
    npy(tmp_path, "mix/img_emb/img_emb_0.npy", np.ones((2, 4), np.float32))
    (item,) = found(tmp_path, "mix", dim=4)
    assert item.paths("pictures") == ["a.jpg"]
    assert item.paths("webdataset") == ["annotations.tar"]
    assert item.paths("embeddings") == ["img_emb/img_emb_0.npy"]


EXACT = ("exact", "perceptual")


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("nowhere", {}, "nothing is at .*nowhere; check the path"),
        ("pictures/{0..2}.jpg", {}, "nothing is at .*pictures/2.jpg"),
        ("pictures/*.tar", {}, "nothing is at .*"),
        ("notes", {}, "holds no pictures, no .tar and no img_emb"),
        ("{0..", {}, "nothing is at|cannot be read"),
        ("{{a},b", {}, "cannot be read"),
        ("foo://x", {}, r"foo://x cannot be read \(Protocol not known: foo\)"),
        ("no_tar", {}, "0.tar is empty: fetch it again"),
        ("vectors", {"tiers": EXACT}, "only the embedding tier compares"),
        ("vectors", {"dim": 5}, "img_emb_0.npy has vectors of 4 dimensions, the root of 5"),
        ("vectors_empty", {}, "img_emb_0.npy is no .npy file"),
        ("vectors_none", {}, "not one floating-point vector a row"),
        ("vectors_torn", {}, "is truncated"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, spec: str, options: dict[str, Any], words: str) -> None:
    write(tmp_path, "pictures/0.jpg", "pictures/1.jpg", "notes/a.txt", "notes/text_emb/text_emb_0.npy")
    write(tmp_path, "no_tar/0.tar", "vectors_empty/img_emb/img_emb_0.npy", data=b"")
    npy(tmp_path, "vectors/img_emb/img_emb_0.npy", np.ones((3, 4), np.float16))
    npy(tmp_path, "vectors_none/img_emb/img_emb_0.npy", np.ones((3, 0), np.float16))
    torn = (tmp_path / "vectors/img_emb/img_emb_0.npy").read_bytes()[:-1]
    write(tmp_path, "vectors_torn/img_emb/img_emb_0.npy", data=torn)
    with pytest.raises(UserError, match=f"^dedupe.against.*{words}|{words}") as raised:
        found(tmp_path, spec, **options)
    assert "\n" not in str(raised.value)


def test_pictures_need_a_tier_that_sees_them(tmp_path: Path) -> None:
    write(tmp_path, "pictures/0.jpg")
    npy(tmp_path, "laion/img_emb/img_emb_0.npy", np.ones((3, 4), np.float16))
    assert found(tmp_path, "pictures", tiers=("embedding",), dim=1280)
    folder = str(tmp_path / "laion")
    with pytest.raises(UserError, match="holds pictures, which .*laion cannot embed"):
        found(tmp_path, "pictures", tiers=("embedding",), model=folder, dim=4)
    assert found(tmp_path, "pictures", model=folder, dim=4)


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a/val/0.jpg", "b/val/0.jpg")
    with pytest.raises(UserError, match="two sets 'val'"):
        found(tmp_path, "a/val", "b/val")


def test_a_set_that_changed_is_another_and_one_that_did_not_is_the_same(tmp_path: Path) -> None:
    write(tmp_path, "val/0.jpg")
    os.utime(tmp_path / "val/0.jpg", (1_000, 1_000))
    (before,) = found(tmp_path, "val")
    assert found(tmp_path, "val")[0].fingerprint == before.fingerprint
    write(tmp_path, "val/0.jpg", data=JPEG[::-1])
    assert found(tmp_path, "val")[0].fingerprint != before.fingerprint


def test_a_set_in_a_bucket_is_known_by_its_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    with s3() as endpoint:
        for name, value in {"ACCESS_KEY_ID": CREDENTIALS["key"], "SECRET_ACCESS_KEY": CREDENTIALS["secret"]}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        fs = s3fs.S3FileSystem(use_listings_cache=False)
        fs.pipe("curation/val/0.tar", b"first")
        fs.pipe("curation/val/deep/1.jpg", b"first")
        prints = [found(tmp_path, "s3://curation/val")[0].fingerprint for _ in range(2)]
        assert prints[0] == prints[1]
        (item,) = found(tmp_path, "s3://curation/val/{0..0}.tar")
        assert (item.base, [file.path for file in item.files]) == ("s3://curation/val", ["0.tar"])
        fs.pipe("curation/val/deep/1.jpg", b"other")
        assert found(tmp_path, "s3://curation/val")[0].fingerprint != prints[0]
        with pytest.raises(UserError, match="nothing is at curation/nowhere"):
            found(tmp_path, "s3://curation/nowhere")
