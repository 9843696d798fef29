"""Perplexity of captions, by an n-gram model that need not be installed."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path

import pyarrow as pa
import pytest

import filters
from curation.errors import UserError
from filters import caption_perplexity

ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.3
-0.9\t</s>
-0.5\ta\t-0.2
-0.7\tdog\t-0.1

\\2-grams:
-0.2\t<s> a
-0.3\ta dog
-0.1\tdog </s>

\\end\\
"""


class Model:
    """As many as the sentence has characters."""

    def perplexity(self, sentence: str) -> float:
        return float(len(sentence))


def score(captions: list[str | None], **options: object) -> list[float | None]:
    batch = pa.RecordBatch.from_pydict({"caption": pa.array(captions, pa.string())})
    item = filters.build("caption_perplexity", options)
    found: list[float | None] = item.apply(batch)["caption_perplexity"].to_pylist()
    return found


@pytest.fixture(autouse=True)
def no_earlier_model() -> None:
    caption_perplexity._model.cache_clear()


def test_the_model_is_asked_for_words_without_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_perplexity, "_model", lambda path: Model())
    captions = ["A dog, RUNNING!", None, "", "…", "a b c d"]
    assert score(captions, model="m.arpa", max_words=3) == [len("a dog running"), None, None, None, len("a b c")]


def test_without_kenlm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(UserError, match="pip install kenlm"):
        filters.build("caption_perplexity", {"model": "m.arpa"}).check_ready()


def test_a_model_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", types.ModuleType("kenlm"))
    with pytest.raises(UserError, match="There is no model"):
        filters.build("caption_perplexity", {"model": str(tmp_path / "m.arpa")}).check_ready()


def test_the_real_package_reads_a_model_and_refuses_what_is_none(tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="the language model is an optional extra")
    (tmp_path / "m.arpa").write_text(ARPA)
    likely, unlikely = score(["A dog.", "a zebra"], model=str(tmp_path / "m.arpa"))
    assert likely == pytest.approx(10 ** ((0.2 + 0.3 + 0.1) / 3)) and unlikely is not None and unlikely > likely
    assert math.isfinite(unlikely)
    (tmp_path / "text.arpa").write_text("no model\n")
    with pytest.raises(UserError, match="no model that KenLM can read"):
        filters.build("caption_perplexity", {"model": str(tmp_path / "text.arpa")}).check_ready()
