"""An object store that resets, cuts short, refuses or wants credentials: one sentence, and no advice to delete."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from curation.storage import Root
from tests.support import s3_server, small_root
from tests.support.command import Command
from tests.support.s3_proxy import Moody

WAYS = {
    "reset": "The object store does not answer as it should (Connection was closed",
    "short": "The object store does not answer as it should (",
    "503": "Service Unavailable",
    "403": "Forbidden; give this account the right to it",
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server.s3() as url:
        root = Root("s3://curation/run", **s3_server.options(url))
        root.create()
        made = small_root.build(root)
        small_root.pack(made, small_root.select(made))
        yield url


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # its instances keep the endpoint of an earlier test
    for name, value in {"AWS_MAX_ATTEMPTS": "1", "AWS_RETRY_MODE": "standard"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    return Command(capsys)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("only", ["root.json", "samples/"])
@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_fails(
    command: Command, endpoint: str, monkeypatch: pytest.MonkeyPatch, way: str, only: str
) -> None:
    with Moody(endpoint) as moody:
        monkeypatch.setenv("AWS_ENDPOINT_URL", moody.endpoint)
        moody.way, moody.only, moody.down = way, only, True
        said = command.refuses("status", "s3://curation/run")
    assert WAYS[way] in said or (way == "403" and "give this account the right to" in said)
    assert "delete" not in said and "damaged" not in said


def test_credentials_that_are_missing(command: Command, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    said = command.refuses("status", "s3://curation/run")
    assert said.startswith("The object store needs credentials (Unable to locate credentials): set them in")
