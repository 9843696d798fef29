"""Opt-out lists: what an entry covers, and what it does not, however either is written."""

from __future__ import annotations

import os
import pickle
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.download import opt_out
from curation.download.opt_out import OptOut, load_opt_out
from curation.download.unit import resolve_opt_out_paths
from curation.errors import UserError
from curation.fetch.urls import parse_url
from curation.recipe.config import DownloadConfig, Recipe

SHA256 = "0123456789abcdef" * 4
LIST = """\ufeff# people who asked
https://a.example/picture.jpg
Host.Example
sub.other.example.   # since 2024
0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef

  shop.example
*.star.example
.dot.example
münchen.example
xn--bcher-kva.example
\u00a0blank.example
ｗｉｄｅ.example
http://b.example/~a/%e9/../p%2fq.jpg?x=%2F
https://whole.example/
198.51.100.7
http://192.0.2.1/a.jpg
0.2.2
[2001:db8::7]
*.intranet
ftp://c.example/never.jpg
"""


def loaded(folder: Path, text: str) -> OptOut:
    file = folder / "list.txt"
    file.write_text(text, encoding="utf-8")
    return load_opt_out([str(file)], folder)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> OptOut:
    return loaded(tmp_path_factory.mktemp("opt-out"), LIST)


@pytest.mark.parametrize(
    "url, refused",
    [
        ("https://a.example/picture.jpg", True),
        ("https://a.example/picture.jpg#top", True),
        ("HTTPS://A.Example:443/x/../picture.jpg", True),
        ("https://user:secret@a.example./picture.jpg", True),
        ("\u00a0https://a.example/%70icture.jpg\n", True),
        ("https://a.example/picture.jpg?x", False),
        ("https://a.example:444/picture.jpg", False),
        ("http://a.example/picture.jpg", False),
        ("https://a.example/", False),
        ("http://host.example/any", True),
        ("http://HOST.EXAMPLE:8080/any", True),
        ("http://host.example./any", True),
        ("http://deep.below.host.example/any", True),
        ("http://user@host.example/any", True),
        ("http://host。example/any", True),
        ("http://ｈｏｓｔ.example/any", True),
        ("http://nothost.example/any", False),
        ("http://example/any", False),
        ("http://other.example/any", False),
        ("http://sub.other.example/any", True),
        ("http://shop.example/", True),
        ("http://star.example/", True),
        ("http://a.star.example/", True),
        ("http://dot.example/", True),
        ("http://xn--mnchen-3ya.example/", True),
        ("http://BÜCHER.example/x", True),
        ("http://blank.example/", True),
        ("http://wide.example/", True),
        ("http://b.example/%7Ea/p%2Fq.jpg?x=%2f", True),
        ("http://b.example/~a/p/q.jpg?x=%2F", False),
        ("http://www.whole.example/x.jpg", True),
        ("http://198.51.100.7/x", True),
        ("http://[2001:DB8:0::7]/x", True),
        ("http://[::ffff:198.51.100.7]/x", True),
        ("http://3325256711/x", True),
        ("http://0xC6336407/x", True),
        ("http://0306.063.0144.07/x", True),
        ("http://198.51.25607/x", True),
        ("http://198.51.100.7./x", True),
        ("http://198.51.100.8/x", False),
        ("http://9.198.51.100.7/x", False),
        ("http://192.0.2.2/x", False),
        ("http://0xC0000201/a.jpg", True),
        ("http://mirror.intranet/x", True),
        ("http://c.example/never.jpg", False),
        ("http://[::1/", False),
        ("http://" + "a." * 5_000 + "host.example/", True),
        ("", False),
    ],
)
def test_what_is_refused(listed: OptOut, url: str, refused: bool) -> None:
    assert listed.refuses_url(url) is refused


def test_pictures_are_refused_by_their_sha256(listed: OptOut) -> None:
    assert listed.refuses_sha256(SHA256) and listed.refuses_sha256(SHA256.upper())
    assert not listed.refuses_sha256("f" * 64) and not listed.refuses_sha256(None)


@settings(max_examples=100, deadline=None)
@given(text=st.text("abAB/.%27eE?é ~*", max_size=12))
def test_a_url_refuses_itself_as_it_is_fetched(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    url = f"http://a.example/x{text}"
    try:
        found = loaded(tmp_path_factory.mktemp("one"), url)
    except UserError:
        return  # a star at its end
    target = parse_url(url)
    assert found.refuses_url(url) and found.refuses_url(f"{target.origin}{target.path}")


@pytest.mark.parametrize(
    "line, said",
    [
        ("word", "a single word"),
        ("url", "a single word"),
        ("d41d8cd98f00b204e9800998ecf8427e", "a single word"),
        ("a.example/picture.jpg", "no URL, host or sha256"),
        ("someone@a.example", "no URL, host or sha256"),
        ("a*.example", "no URL, host or sha256"),
        ("a.example b.example", "characters that no host name has"),
        ("http//a.example/x", "no URL, host or sha256"),
        ("http://a.example/*", "so name the host"),
        ("https://*.a.example/", "so name the host"),
        ("http://:80/x", "host is required"),
        ("http://[::1/x", "line 2"),
    ],
)
def test_a_line_that_would_match_nothing_is_one_sentence(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UserError, match="in line 2") as error:
        loaded(tmp_path, f"a.example\n{line}\n")
    assert said in str(error.value) and str(tmp_path / "list.txt") in str(error.value)
    assert not list(tmp_path.glob("*.npy"))


def test_lists_add_up(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(LIST)
    second.write_text("ff" * 32 + "\r\nmore.example\r\n")
    found = load_opt_out([str(first), str(second)], tmp_path)
    assert found.refuses_sha256(SHA256) and found.refuses_sha256("ff" * 32)
    assert found.refuses_url("http://more.example/") and found.refuses_url("http://host.example/")


def test_a_pattern_names_many_lists_and_one_without_a_list_is_refused(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"h{number}.example\n")
    for pattern in ("{0..1}.txt", "[01].txt"):
        recipe = Recipe(folder=str(tmp_path), download=DownloadConfig(opt_out=(pattern,)))
        found = load_opt_out(resolve_opt_out_paths(recipe).opt_out, tmp_path)
        assert [found.refuses_url(f"http://h{number}.example/") for number in range(3)] == [True, True, False]
    with pytest.raises(UserError, match=r"download.opt_out: nothing matches .*lists-\*.txt; check the path"):
        resolve_opt_out_paths(Recipe(folder=str(tmp_path), download=DownloadConfig(opt_out=("lists-*.txt",))))


def test_no_list_refuses_nothing(tmp_path: Path) -> None:
    for nothing in (load_opt_out([], tmp_path), loaded(tmp_path, ""), loaded(tmp_path, "# nobody yet\n")):
        assert not nothing.refuses_url("http://a.example/") and not nothing.refuses_sha256(SHA256)


def test_a_list_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = opt_out.read_keys, []
    monkeypatch.setattr(opt_out, "read_keys", lambda path, *more: reads.append(path) or read(path, *more))
    file = tmp_path / "list.txt"
    file.write_text("a.example")
    threads = [threading.Thread(target=load_opt_out, args=([str(file)], tmp_path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    before = os.stat(file)
    file.write_text("b.example")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert load_opt_out([str(file)], tmp_path).refuses_url("http://b.example/")
    assert len(reads) == 2


class Undated(BaseHTTPRequestHandler):
    """Serves `lines` without a tag, a date or a length, as a page that a program makes."""

    lines: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write("\n".join(self.lines).encode())

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        return


def test_a_list_without_tag_or_date_is_read_again_when_it_grows(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Undated) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/list.txt"
        Undated.lines = ["a.example"]
        assert not load_opt_out([url], tmp_path).refuses_url("http://b.example/")
        Undated.lines = ["a.example", "b.example"]
        assert load_opt_out([url], tmp_path).refuses_url("http://b.example/")
        server.shutdown()


def test_a_list_may_lie_elsewhere(tmp_path: Path) -> None:
    with fsspec.open("memory://opt-out.txt", "w") as f:
        f.write("a.example\n")
    assert load_opt_out(["memory://opt-out.txt"], tmp_path).refuses_url("http://a.example/")


def test_a_process_beside_gets_the_file_and_not_its_bytes(tmp_path: Path) -> None:
    found = loaded(tmp_path, "\n".join(f"h{i}.example" for i in range(10_000)))
    assert found.refuses_url("http://h77.example/") and not found.refuses_url("http://h10000.example/")
    sent = pickle.dumps(found)
    assert len(sent) < 1_000 and pickle.loads(sent).refuses_url("http://h77.example/")


def test_against_a_set(tmp_path: Path) -> None:
    """Every entry of a list is found, whatever stands around it, and nothing else."""
    some = random.Random(0)
    urls = [f"http://h{some.randrange(50)}.example/{some.randrange(4_000)}.jpg" for _ in range(3_000)]
    found = loaded(tmp_path, "\n".join(urls[:1_500]))
    assert [found.refuses_url(url) for url in urls] == [url in set(urls[:1_500]) for url in urls]


def test_a_list_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (str(tmp_path / "missing.txt"), str(tmp_path / "binary"), "nothing://such/list"):
        with pytest.raises(UserError, match="cannot be read"):
            load_opt_out([path], tmp_path)
