"""The page in a real browser: keys, blurred pictures, refusals, and that it asks nobody but its own server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.storage import Root
from tests.support.browse_server import Served, serve_browse
from tests.support.chromium import Browser, open_browser
from tests.support.picture_root import fill, scene
from tests.support.small_root import SmallRoot

TILES = "document.querySelectorAll('.tile').length"
OPEN = "document.querySelector('.detail .decisions li')"
SELECTED = "document.querySelector('.tile.selected')?.dataset.uid"


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks") / "marks.parquet"


@pytest.fixture(scope="module")
def served(made: SmallRoot, marks: Path) -> Iterator[Served]:
    with serve_browse(made.root, "--seconds", "300", "--marks", str(marks)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        found.resize(1280, 800)
        yield found


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Browser]:
    """The page at its first wall; afterwards it has reported no error, and has asked nobody but its server."""
    open_at(browser, served, "")
    browser.wait(f"{TILES} > 3 && document.querySelector('.chip')")
    yield browser
    assert browser.errors == []
    assert {"/".join(url.split("/")[:4]) for url in browser.requests if url != "about:blank"} == {served.address[:-1]}


def open_at(browser: Browser, served: Served, hash_: str) -> None:
    browser.open("about:blank")
    browser.open(served.address + hash_)


def search(page: Browser, text: str) -> None:
    page.press("/")
    page.type(text)
    page.press("Enter")


def test_the_first_wall_is_what_is_kept(page: Browser, made: SmallRoot) -> None:
    assert page.ask("document.querySelector('#search').value") == "kept"
    assert page.ask("document.querySelector('.chip[aria-pressed=true]').textContent").startswith("kept")
    page.wait("document.querySelector('.total').textContent.endsWith(' rows')")
    page.wait("[...document.querySelectorAll('.tile img')].every(image => image.naturalWidth > 0)")


def test_keys_walk_through_the_wall_and_open_pictures(page: Browser) -> None:
    order = page.ask("[...document.querySelectorAll('.tile')].map(tile => tile.dataset.uid)")
    for key, place in (("j", 0), ("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0), ("k", 0)):
        page.press(key)
        page.wait(f"{SELECTED} === '{order[place]}'")
    page.press(" ")
    page.wait(OPEN)
    page.press("j")
    page.wait(f"document.querySelector('.detail header code').textContent === '{order[1]}' && {OPEN}")
    page.press("ArrowDown")
    page.wait(f"{SELECTED} !== '{order[1]}'")
    page.press("Escape")
    page.wait("!document.querySelector('.detail')")
    page.press("?")
    page.wait("document.querySelector('[role=dialog]')")
    page.press("Escape")
    page.wait("!document.querySelector('[role=dialog]')")


def test_pictures_that_no_score_calls_safe_are_blurred_until_they_are_clicked(page: Browser, served: Served) -> None:
    search(page, "punsafe > 0.5 and status = 'ok'")
    page.wait(f"{TILES} > 3 && document.querySelectorAll('.tile.veiled').length === {TILES}")
    assert page.ask("getComputedStyle(document.querySelector('.tile img')).filter").startswith("blur")
    page.click(".tile")
    page.wait(f"document.querySelectorAll('.tile.veiled').length === {TILES} - 1")
    assert not page.ask("Boolean(document.querySelector('.detail'))"), "the first click shows, the second one opens"
    page.press("j")
    page.press(" ")
    page.wait(f"{OPEN} && document.querySelector('.large.veiled')")
    page.press("b")
    page.wait("document.querySelector('.large:not(.veiled)')")
    search(page, "punsafe <= 0.5 and status = 'ok'")
    page.wait(f"{TILES} > 3 && !document.querySelector('.tile.veiled')")


def test_sql_that_is_more_than_a_condition_is_refused_on_the_page(page: Browser) -> None:
    for text, said in (
        ("attach 'x.db'", "only reads, and ATTACH does not"),
        ("uid in (select uid from read_csv('/etc/passwd'))", "no files"),
        ("nothing > 3", "DuckDB refuses the query"),
    ):
        search(page, text)
        page.wait(f"document.querySelector('[role=alert]')?.textContent.includes({said!r})")
        assert page.ask(TILES) == 0
    search(page, "width < 0")
    page.wait("document.querySelector('.nothing')")
    assert page.ask("document.querySelectorAll('.ghost').length") == 0


def test_words_find_captions_and_going_back_finds_what_was_asked_before(page: Browser) -> None:
    page.click("[role=radio]:nth-child(2)")
    page.wait("document.querySelector('#search').matches('.words:focus')")
    page.type("THING 4")
    page.press("Enter")
    page.wait("[...document.querySelectorAll('.tile .caption')].some(c => c.textContent.includes('thing 4 '))")
    assert "words=THING+4" in page.ask("location.hash")
    page.ask("history.back()")
    page.wait("document.querySelector('#search').value === 'kept'")
    page.wait(f"{TILES} > 3")


def test_keys_find_the_nearest_by_embedding_and_by_hash_and_back_leads_back(page: Browser) -> None:
    page.press("j")
    page.wait(f"Boolean({SELECTED})")
    uid = page.ask(SELECTED)
    page.press("n")
    page.wait("document.querySelector('.tile .facts')?.textContent.includes('cosine 1')")
    assert page.ask("document.querySelector('.tile').dataset.uid") == uid
    page.press("j")
    page.press("h")
    page.wait("document.querySelector('.tile .facts')?.textContent.includes('bits 0')")
    page.click(".nearest .plain")
    page.wait("document.querySelector('.tile .facts')?.textContent.includes('cosine')")
    page.click(".nearest .plain")
    page.wait("document.querySelector('#search').value === 'kept' && !document.querySelector('.nearest')")


def test_two_selections_stand_side_by_side_whole_or_without_what_both_have(page: Browser) -> None:
    tiles = "[...document.querySelectorAll('.side')].map(side => side.querySelectorAll('.tile').length).join()"
    search(page, "reason = 'wide'")
    page.wait("document.querySelector('.total').textContent.endsWith(' rows')")
    page.press("c")
    page.wait("document.querySelector('#second')")
    page.click("#second")
    page.type("aesthetic >= 5")
    page.press("Enter")
    page.wait("document.querySelector('.side p')?.textContent.includes(' in both')")
    page.wait("document.querySelectorAll('.side p')[1].textContent.includes('only here')")
    said = page.ask("[...document.querySelectorAll('.side p')].map(p => p.textContent.match(/\\d+/g).map(Number))")
    (left, only_left, both), (right, only_right) = said
    assert left == only_left + both and right == only_right + both and both > 0
    page.wait(f"{tiles} === '{left},{right}'")
    page.click(".side input[type=checkbox]")
    page.wait(f"{tiles} === '{only_left},{only_right}'")
    page.press("c")
    page.wait("!document.querySelector('.side')")
    assert page.ask("document.querySelector('#search').value") == "reason = 'wide'"


def test_a_key_marks_and_takes_the_mark_away(page: Browser, marks: Path) -> None:
    page.press("j")
    page.wait(f"Boolean({SELECTED})")
    uid = page.ask(SELECTED)
    page.press("x")
    page.wait(
        "document.querySelector('.tile.selected.marked') && document.querySelector('.chip').textContent === 'marked 1'"
    )
    assert pq.read_table(marks).to_pydict() == {"uid": [uid], "mark": [True]}
    page.click(".chip")
    page.wait(f"document.querySelectorAll('.tile.marked').length === 1 && {TILES} === 1")
    page.press("j")
    page.press("x")
    page.wait("!document.querySelector('.tile.marked')")
    assert pq.read_table(marks).num_rows == 0


def test_more_pictures_come_as_one_scrolls(page: Browser, made: SmallRoot) -> None:
    search(page, "true order by uid")
    page.wait(f"{TILES} === {len(made.units)}")
    page.wait("document.querySelector('.end').textContent.includes('that is all')")


HOSTILE = "</title><img src=x onerror=alert(1)><script>alert(2)</script>"


def test_what_a_hostile_root_says_is_text(browser: Browser, root: Root) -> None:
    sink = io.BytesIO()
    scene(1).save(sink, "PNG")
    more = {"source": HOSTILE, "license": HOSTILE, "punsafe": 0.0}
    # The plan that `fill` writes is damaged, which is said and costs nothing but the counts.
    fill(root, [(HOSTILE, sink.getvalue(), more), (HOSTILE + "2", b"", more)])
    with serve_browse(root, "--seconds", "300") as served:
        open_at(browser, served, "#where=true")
        browser.wait(f"{TILES} === 2 && document.querySelector('.said')")
        browser.press("j")
        browser.press(" ")
        browser.wait(OPEN)
        assert browser.ask("document.querySelector('.detail .text').textContent").startswith(HOSTILE)
        browser.press("Escape")
        search(browser, HOSTILE)
        browser.wait("document.querySelector('[role=alert]')")
        assert browser.ask("document.querySelectorAll('img[src=x], .tile script, #app script').length") == 0
        browser.open("about:blank")
    assert browser.errors == []
    browser.requests.clear()


def test_without_the_token_there_is_no_page(browser: Browser, served: Served) -> None:
    browser.open(served.origin)
    assert "needs the whole address" in browser.ask("document.body.innerText")
    browser.open("about:blank")
    browser.errors.clear()
    browser.requests.clear()


def test_the_counts_of_the_funnel_wrap_and_need_no_scrolling_sideways(page: Browser) -> None:
    page.wait("document.querySelectorAll('.chip').length > 3")
    page.resize(480, 800)
    chips = "document.querySelector('.chips')"
    tops = "new Set([...document.querySelectorAll('.chip')].map(chip => chip.offsetTop)).size"
    try:
        page.wait(f"{tops} > 1")
        assert page.ask(f"{chips}.scrollWidth <= {chips}.clientWidth")
    finally:
        page.resize(1280, 800)
