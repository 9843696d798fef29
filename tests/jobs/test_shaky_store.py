"""All stages on a store that fails as stores under load do, while others read it: the bytes are those of a disk."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.report import status_text
from curation.storage import Root
from curation.verify import verify
from tests.support import demo_run, s3_server
from tests.support.browse_server import serve_browse
from tests.support.s3_proxy import Shaky
from tests.support.small_web import pictures, recipe, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEED = 20261128
SHARE = 0.06
"""Of all requests; the client of the product is set up as it is by default, so each fault costs half a second."""
NAME = "s3://curation/a[b]*?/run"


@pytest.fixture
def shaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shaky]:
    """The store behind its faults, in the environment of this process and of those that it starts."""
    with s3_server.s3() as endpoint, Shaky(endpoint, SEED, SHARE) as proxy:
        named = {"AWS_ENDPOINT_URL": proxy.endpoint, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        for name, value in named.items():
            monkeypatch.setenv(name, value)
        yield proxy


def run_all(file: Path, root: str) -> None:
    command = demo_run.curate("run", "--recipe", file, "--root", root)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, env=demo_run.environment(), text=True, check=False, **streams)
    assert done.returncode == 0, done.stdout[-4_000:]


def remote_contents(root: Root) -> dict[str, bytes]:
    names = [path.removeprefix(f"{root.path}/") for path in root.fs.find(root.path)]
    return {name: root.read_bytes(name) for name in names if not name.startswith(demo_run.TRANSIENT)}


class Readers(threading.Thread):
    """Asks status and manifest of `root` until `ended` is set. Whatever is no whole answer and no sentence is kept."""

    def __init__(self, root: Root) -> None:
        super().__init__()
        self.root, self.ended, self.counts = root, threading.Event(), Counter[str]()
        self.failures: list[BaseException] = []

    def run(self) -> None:
        while not self.ended.wait(0.2):
            try:
                self.look()
            except UserError as error:  # such as a version that was made from what has changed since
                self.counts[str(error)] += 1
            except BaseException as error:  # noqa: BLE001  # the test raises it
                self.failures.append(error)

    def look(self) -> None:
        if not self.root.exists("root.json"):
            return
        assert "samples" in status_text(self.root)
        with Manifest(self.root) as manifest:
            ((count, whole),) = manifest.query("select count(*), count(url) from manifest").fetchall()
            assert count == whole and count in (0, *range(10, 61))
            manifest.query("select status, kept, reason, train_shard from manifest").fetchall()
        self.counts["read"] += 1


def ask_browse(address: str) -> None:
    for question in ("start", "summary", "wall", "count?where=kept"):
        with urllib.request.urlopen(f"{address}api/{question}", timeout=300) as answer:
            assert "error" not in json.load(answer), question


def test_a_run_on_a_shaky_store_gives_the_bytes_of_a_disk(shaky: Shaky, tmp_path: Path) -> None:
    local = tmp_path / "local"
    with serve(pictures) as (port, _):
        file = recipe(tmp_path / "meta", port, num_rows=60)
        run_all(file, str(local))
        root = Root(NAME)
        readers = Readers(Root(NAME, skip_instance_cache=True))
        readers.start()
        try:
            run_all(file, NAME)
        finally:
            readers.ended.set()
            readers.join()
        before = remote_contents(root)
        run_all(file, NAME)
    assert readers.failures == [] and readers.counts["read"] > 3, readers.counts
    assert verify(root) is None
    with serve_browse(root, "--seconds", "300") as served:
        ask_browse(served.address)
    found = remote_contents(root)
    assert found == before
    expected = {name: path.read_bytes() for name, path in demo_run.files(local).items()}
    assert sorted(found) == sorted(expected)
    assert [name for name, data in expected.items() if found[name] != data] == []
    assert {kind.partition(" ")[2] for kind in shaky.made} >= {"503", "reset", "slow", "short", "lost"}, shaky.made
