"""What a task raised is what the driver raises: UserError with every line, OSError with everything it says."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from curation.errors import UserError
from jobs.spark.errors import unwrap_task_errors
from jobs.spark.tasks import map_units

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LINES = (
    "File a.tar is bad: delete it.\nIt ends at byte 7.\n\n  Traceback (most recent call last):\nThat was the last line."
)


class DeeperError(UserError):
    """A UserError that has a name of its own."""


def by_map(spark: SparkSession, action: Callable[[], None]) -> None:
    map_units(spark, "fail", [0], lambda _: action())


def by_arrow(spark: SparkSession, action: Callable[[], None]) -> None:
    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        action()
        yield from batches

    with unwrap_task_errors():
        spark.range(3).mapInArrow(work, "id bigint").collect()


@pytest.fixture(params=[by_map, by_arrow], ids=["map_units", "mapInArrow"])
def run(request: pytest.FixtureRequest, spark: SparkSession) -> Callable[[Callable[[], None]], None]:
    def call(action: Callable[[], None]) -> None:
        request.param(spark, action)

    return call


Call = Callable[[Callable[[], None]], None]


@pytest.mark.parametrize("sentence", ["One sentence: do this.", LINES, "Quoted 'a': \"b\" and \\n, ünïcode.", ""])
def test_a_user_error_keeps_every_line(run: Call, sentence: str) -> None:
    def fail() -> None:
        raise UserError(sentence)

    with pytest.raises(UserError) as caught:
        run(fail)
    assert str(caught.value) == sentence


def test_a_subclass_of_user_error_is_a_user_error(run: Call) -> None:
    def fail() -> None:
        raise DeeperError("Deep.\nDeeper.")

    with pytest.raises(UserError) as caught:
        run(fail)
    assert str(caught.value) == "Deep.\nDeeper."


def test_of_a_chain_the_last_error_counts(run: Call) -> None:
    def fail() -> None:
        try:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/a.tar")
        except OSError as error:
            raise UserError("The shard a.tar is gone: restore it.") from error

    with pytest.raises(UserError) as caught:
        run(fail)
    assert str(caught.value) == "The shard a.tar is gone: restore it."


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/root/a.tar"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", 'it\'s "here": here'),
        IsADirectoryError(errno.EISDIR, "Is a directory", "/tmp"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("no answer in 30 s"),
        FileExistsError("/a.tar"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error.errno}",
)
def test_an_os_error_keeps_its_class_number_and_files(run: Call, error: OSError) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(OSError) as caught:
        run(fail)
    found = caught.value
    assert type(found) is type(error)
    wanted = (error.errno, error.strerror, error.filename, error.filename2, str(error))
    assert (found.errno, found.strerror, found.filename, found.filename2, str(found)) == wanted


def test_an_error_of_a_store_says_so(run: Call) -> None:
    from botocore.exceptions import ConnectionClosedError, NoCredentialsError

    def fail() -> None:
        raise ConnectionClosedError(endpoint_url="http://h.test")

    with pytest.raises(OSError, match=r"object store does not answer as it should .*http://h\.test"):
        run(fail)

    def ask() -> None:
        raise NoCredentialsError

    with pytest.raises(OSError, match="object store needs credentials"):
        run(ask)


def test_any_other_error_stays_what_spark_makes_of_it(run: Call) -> None:
    def fail() -> None:
        raise ValueError("curation.errors.UserError: not one")

    with pytest.raises(Exception, match="not one") as caught:
        run(fail)
    assert not isinstance(caught.value, UserError | OSError) and "ValueError" in str(caught.value)
