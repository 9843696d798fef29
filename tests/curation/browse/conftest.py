"""A root with every table of a finished run, some of whose texts are hostile, and answers about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from curation.browse.answers import Answers
from curation.browse.desk import Desk
from curation.manifest.manifest import Manifest
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import SmallRoot

SECONDS = 300.0
"""No question of a test may be stopped because the machine is busy."""
Asking = Callable[..., Any]


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRoot:
    """Read by all tests of the page; those that damage a root make their own."""
    root = Root(tmp_path_factory.mktemp("browse") / "root")
    root.create()
    return small_root.finish(root)


@pytest.fixture(scope="package")
def desk(made: SmallRoot) -> Iterator[Desk]:
    found = Desk(Manifest(made.root))
    yield found
    found.close()


@pytest.fixture(scope="package")
def ask(made: SmallRoot) -> Iterator[Asking]:
    """`ask(question, **asked)` is the answer."""
    with asyncio.Runner() as runner:

        async def open_answers() -> Answers:
            return Answers.open(made.root, SECONDS)

        answers = runner.run(open_answers())
        yield lambda question, **asked: runner.run(answers.answer(question, asked))
        runner.run(answers.close())


@pytest.fixture(scope="package")
def uids(made: SmallRoot) -> list[str]:
    """Every uid, in the order of the wall: unit by unit."""
    return [uid for unit in small_root.UNITS for uid in sorted(u for u, name in made.units.items() if name == unit)]
