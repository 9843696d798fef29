"""The readers of foreign bytes on inputs that were changed by chance, and on each input that broke one once."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.fuzz import KEPT, READERS, HttpReader, Reader, catch, make_input

SEED = 0
NUM_INPUTS = 200
readers = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)


@readers
def test_inputs_that_were_not_changed_break_nothing(reader: Reader) -> None:
    assert set(reader.read(reader.seeds)) == {None}


@readers
def test_the_first_changed_inputs_break_nothing(reader: Reader) -> None:
    inputs = [make_input(reader, SEED, number) for number in range(NUM_INPUTS)]
    assert [(number, broke) for number, broke in enumerate(reader.read(inputs)) if broke] == []


@readers
def test_what_broke_a_reader_once_breaks_it_no_more(reader: Reader) -> None:
    kept = sorted((KEPT / reader.name).glob("*"))
    broken = reader.read([file.read_bytes() for file in kept])
    assert [(file.name, broke) for file, broke in zip(kept, broken, strict=True) if broke] == []


def test_an_input_is_the_same_for_the_same_seed_and_number() -> None:
    reader = HttpReader()
    made = [make_input(reader, 1, number) for number in range(50)]
    assert made == [make_input(reader, 1, number) for number in range(50)]
    assert len({hashlib.sha256(data).digest() for data in made}) > 40
    assert made != [make_input(reader, 2, number) for number in range(50)]


def test_whatever_is_no_refusal_counts_as_broken() -> None:
    def refuse() -> None:
        raise KeyError("expected")

    def fail() -> None:
        raise IndexError("not expected")

    assert catch(refuse, KeyError) is None and catch(lambda: None) is None
    assert catch(fail, KeyError) == "IndexError('not expected')"
