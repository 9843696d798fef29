"""What Spark and its client say goes to a file of the root; the terminal is the command's own."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from curation.storage import Root
from jobs.spark.log import open_log


def log_to_root(pathname: str, message: str) -> None:
    """Log `message` to the root logger, as a line of the file `pathname` does."""
    values = {"name": "root", "levelno": logging.ERROR, "levelname": "ERROR", "msg": message, "pathname": pathname}
    logging.getLogger().handle(logging.makeLogRecord(values))


def test_what_the_client_logs_to_the_root_logger_is_kept_in_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Root(tmp_path)
    root.create()
    with open_log(root) as path:
        log_to_root("/site-packages/py4j/java_gateway.py", "Exception while sending command.")
        log_to_root("/site-packages/other/module.py", "A warning of another library.")
    log_to_root("/site-packages/py4j/java_gateway.py", "After the stage.")
    assert path.read_text() == "Exception while sending command.\n"
    assert caplog.messages == ["A warning of another library.", "After the stage."]
