"""Whatever ends a command is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from curation.failures import describe_failure


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/root/x"), ("No space left on device (/root/x);",)),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ("Too many open files;", "ulimit -n")),
        (PermissionError("Access Denied"), ("Access Denied; give this account the right",)),
        (NoCredentialsError(), ("needs credentials", "AWS_ACCESS_KEY_ID")),
        (TimeoutError(), ("TimeoutError;",)),
        (EndpointConnectionError(endpoint_url="http://h.test"), ("object store", "http://h.test")),
        (MemoryError("Unable to allocate 8 GiB"), ("too little memory", "8 GiB")),
    ],
)
def test_errors_that_a_user_can_end(error: Exception, words: tuple[str, ...]) -> None:
    said = describe_failure(error)
    assert all(word in said for word in words) and "run the same command again" in said and "\n" not in said


def test_an_error_that_nobody_foresaw_is_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        raise KeyError("shard\nof two lines")
    except KeyError as error:
        said = describe_failure(error)
    (trace,) = tmp_path.iterdir()
    assert str(trace) in said and "KeyError" in said and "\n" not in said
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600 and "Traceback" in trace.read_text()
