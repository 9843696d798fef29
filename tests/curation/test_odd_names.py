"""Roots in folders with odd names: they work as others do, or are refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.export import export
from curation.manifest.manifest import Manifest
from curation.report import status_text, write_html
from curation.storage import Root
from curation.verify import verify
from tests.support import small_root
from trainer.data import Loader

NAMES = ["a [b] *{c,d}?", 'q"uo\\te', "it's 100% #1 & more; $HOME", "a::b", "ünï ☃", " spaces ", "-dash", "a=b,c"]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_looks_at_a_root_works_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "a b c").mkdir()  # what a pattern of the first name would match
    root = Root(tmp_path / name / "root")
    root.create()
    made = small_root.build(root)
    kept = small_root.select(made)
    small_root.pack(made, kept)
    assert verify(root) is None and "kept" in status_text(root)
    with Manifest(root) as manifest:
        assert manifest.query("select count(*) from manifest where kept").fetchall() == [(len(kept),)]
    write_html(root, tmp_path / name / "page.html")
    export(root, "uids", str(tmp_path / name / "uids.npy"), where="")
    loader = Loader(root, batch_size=4, transform=None, tokenizer=None, index_folder=tmp_path / "index")
    assert {uid for batch in loader for uid in batch["uid"]} == set(kept)
    root.remove("train")
    assert not root.list(f"train/{small_root.VERSION}") and (tmp_path / "a b c").exists()


@pytest.mark.parametrize("name", ["new\nline", "tab\t", "esc\x1b[31m", "nul\x00"])
def test_control_characters_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match="control characters") as caught:
        Root(f"/tmp/{name}")
    assert not set(str(caught.value)) & set(name) & set("\n\t\x1b\x00")


@pytest.mark.parametrize("name", ["gs://bucket/run*", "hdfs://host/ru[n]", "memory://run?"])
def test_patterns_are_no_names_of_roots_on_a_store(name: str) -> None:
    with pytest.raises(UserError, match="choose a name without them"):
        Root(name)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Root("~/run").path == os.path.join(tmp_path, "run")
