"""Text in pictures: how much of the caption it spells, by one thread or several."""

from __future__ import annotations

import contextlib
import io
import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

import filters
from filters import text_overlap
from filters.base import IMAGE


def encoded(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def test_text_overlap_is_the_share_of_caption_words_that_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    half = [[0, 0], [100, 0], [100, 10], [0, 10]]

    def reader(pixels: np.ndarray) -> tuple[list[tuple[list[list[int]], str, str]] | None, list[float]]:
        lines = [(half, "Happy BIRTHDAY", "0.98"), (half, "anna", "0.2")]
        return (lines if pixels.mean() > 127 else None), [0.1]

    monkeypatch.setattr(text_overlap, "_reader", lambda: reader)
    white, black = (encoded(np.full((20, 100), value, np.uint8)) for value in (255, 0))
    rows = [(white, "happy birthday, Anna!"), (white, None), (black, "happy"), (b"broken", "happy"), (None, "happy")]
    columns = {"image": pa.array([r[0] for r in rows], IMAGE.type), "caption": pa.array([r[1] for r in rows])}
    found = filters.build("text_overlap", {}).apply(pa.RecordBatch.from_pydict(columns)).to_pydict()
    assert found["text_fraction"] == [0.5, 0.5, 0.0, None, None]
    assert found["text_overlap"] == [pytest.approx(2 / 3), None, 0.0, None, None]


def test_several_threads_read_pictures_at_once_and_score_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = threading.Barrier(4)
    names = ["zero", "one", "two", "three"]

    def reader(pixels: np.ndarray) -> tuple[list[tuple[list[list[int]], str, str]], list[float]]:
        with contextlib.suppress(threading.BrokenBarrierError):
            at_once.wait(timeout=0.001 if alone else 60)
        return [([[0, 0], [8, 0], [8, 8], [0, 8]], names[round(pixels.mean() / 80)], "0.9")], [0.1]

    monkeypatch.setattr(text_overlap, "_reader", lambda: reader)
    images = [encoded(np.full((8, 8), 80 * number, np.uint8)) for number in range(4)]
    columns = {"image": pa.array(images, IMAGE.type), "caption": ["zero one", "one", "x", "a b c three"]}
    batch, found = pa.RecordBatch.from_pydict(columns), []
    for num_threads, alone in ((4, False), (1, True)):
        item = filters.build("text_overlap", {"num_threads": num_threads})
        found.append(item.apply(batch).to_pydict())
        assert item.config()["options"] == {"min_confidence": 0.5}
        assert at_once.broken is alone
    assert found[0] == found[1] and found[0]["text_overlap"] == [0.5, 1.0, 0.0, 0.25]


@given(st.floats(0, 7), st.floats(-5, 5), st.floats(1, 9), st.floats(1, 9))
def test_area_of_a_turned_rectangle(angle: float, shift: float, width: float, height: float) -> None:
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert text_overlap.area(corners @ turn + shift) == pytest.approx(width * height)


def test_a_real_ocr_reads_a_rendered_caption() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="the OCR is an optional extra")
    canvas = Image.new("RGB", (320, 120), "white")
    ImageDraw.Draw(canvas).text((20, 40), "Happy birthday Anna", fill="black", font=ImageFont.load_default(28))
    columns = {"image": pa.array([encoded(np.asarray(canvas))], IMAGE.type), "caption": ["happy birthday anna cake"]}
    found = filters.build("text_overlap", {}).apply(pa.RecordBatch.from_pydict(columns)).to_pylist()
    assert found[0]["text_overlap"] == 0.75 and 0.05 < found[0]["text_fraction"] < 0.5
