import base64
import io
import re

from PIL import Image

from curation.duplicates.contact_sheet import Bin, Pair, render_page
from tests.support.picture_root import scene


def encoded(seed: int, form: str) -> bytes:
    sink = io.BytesIO()
    scene(seed, 400).save(sink, form)
    return sink.getvalue()


def test_the_page_stands_alone_and_marks_the_limit_once() -> None:
    pair = Pair(left=encoded(1, "PNG"), right=encoded(2, "JPEG"), similarity=0.875, label="a <b>")
    bins = [
        Bin(title="near", total=1234, pairs=(pair,), is_removed=True),
        Bin(title="far", total=5, pairs=(), is_removed=False),
        Bin(title="farther", total=1, pairs=(), is_removed=False),
    ]
    text = render_page("Near & far", "look", bins)
    assert text.count('class="limit"') == 1
    assert re.search(r'class="limit">far: 5 pairs, kept', text)
    assert "1,234 pairs, duplicates" in text and "farther: 1 pair, kept" in text
    assert "a &lt;b&gt;" in text and "http" not in text
    shown = re.findall(r"base64,([^\"]+)", text)
    assert len(shown) == 2
    assert max(Image.open(io.BytesIO(base64.b64decode(shown[0]))).size) <= 224


def test_pictures_that_are_not_known_to_be_safe_are_blurred() -> None:
    pair = Pair(left=encoded(1, "PNG"), right=encoded(2, "PNG"), similarity=1, label="", is_blurred=(False, True))
    text = render_page("t", "n", [Bin(title="near", total=1, pairs=(pair,), is_removed=True)])
    assert re.findall(r"<img( class=\"unsafe\")?", text) == ["", ' class="unsafe"'] and ".unsafe { filter: blur" in text
