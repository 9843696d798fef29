"""The page in a real browser: it asks nobody, reports no error, fits its window, and shows pictures when told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from curation import schema
from curation.report import write_html
from curation.storage import Root
from tests.support import small_root
from tests.support.chromium import Browser, open_browser
from tests.support.small_root import UNITS

BLUR = "getComputedStyle(document.querySelector('.veil img')).filter"
BACK = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a root whose captions are hostile and long, and of whose pictures nothing is known."""
    folder = tmp_path_factory.mktemp("report")
    root = Root(folder / "root")
    root.create()
    made = small_root.build(root)
    hostile = "</title></style><script>document.title='taken'</script>" + "W" * 300
    for unit in UNITS:
        rows = [
            row | {"caption": hostile, "punsafe": None}
            for uid, row in sorted(made.samples.items())
            if made.units[uid] == unit
        ]
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
    log = {"unit": "a", "rows": 9, "at": 1e6, "seconds": 60.0, "hosts": {}, "statuses": {"ok": 6, "timeout": 3}}
    root.publish_json("logs/download/a.0.json", log)
    small_root.pack(made, small_root.select(made))
    write_html(root, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    """The page; afterwards it has reported no error, and has loaded nothing but itself and what it holds."""
    browser.resize(1280, 800)
    browser.open("about:blank")
    browser.requests.clear()
    browser.open(page.as_uri())
    yield browser
    assert browser.errors == []
    assert {url for url in browser.requests if not url.startswith("data:image/jpeg;base64,")} == {page.as_uri()}


def test_captions_of_others_run_no_script(opened: Browser) -> None:
    assert opened.ask("document.title") == "root: curation report" and opened.ask("document.scripts.length") == 0


@pytest.mark.parametrize("width", [1280, 1920])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(opened: Browser, width: int, dark: bool) -> None:
    opened.resize(width, 1000, dark=dark)
    assert opened.ask("document.documentElement.scrollWidth") == width
    wide = (
        "[...document.querySelectorAll('section *')].filter(e => e.getBoundingClientRect().right > innerWidth).length"
    )
    assert opened.ask(wide) == 0


def test_blurred_pictures_are_shown_by_click_and_by_key_and_hidden_again(opened: Browser) -> None:
    opened.ask("document.querySelector('.veil').scrollIntoView({block: 'center'})")
    opened.wait(f"{BLUR} === 'blur(14px)'")
    opened.click(".veil")
    opened.wait(f"{BLUR} === 'none'")
    opened.ask("document.querySelector('.veil input').focus()")
    opened.press(" ")
    opened.wait(f"{BLUR} === 'blur(14px)'")
    opened.press(" ")
    opened.wait(f"{BLUR} === 'none'")


def test_light_and_dark_follow_the_system_until_they_are_chosen(opened: Browser) -> None:
    light = opened.ask(BACK)
    opened.resize(1280, 800, dark=True)
    opened.wait(f"{BACK} !== '{light}'")
    dark = opened.ask(BACK)
    opened.click("#light")
    opened.wait(f"{BACK} === '{light}'")
    opened.press("ArrowRight")
    opened.wait(f"{BACK} === '{dark}'")


def test_the_numbers_of_a_chart_open_by_key(opened: Browser) -> None:
    opened.ask("document.querySelector('figure summary').focus()")
    opened.press("Enter")
    opened.wait("document.querySelector('figure details').open")
    assert opened.ask("document.querySelector('figure details td').getBoundingClientRect().height") > 0
