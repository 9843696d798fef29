"""Captions matched against half a million concepts: `concept_match` beside two Aho-Corasick automata.

    nice .venv/bin/python -m benchmarks.concepts

As many entries of as many words as MetaCLIP's metadata have (Xu et al. 2023, table 1: 251,465 single words of
Wikipedia, 100,646 pairs, 61,235 titles, 86,654 synsets), of words by Zipf's law, and captions of LAION's length. One
core. The automata (pyahocorasick, which MetaCLIP uses, and ahocorasick-rs) are measured where they are installed, and
all find the same. Writes benchmarks/results/concepts.json and .md. Target (issue 16): 20,000 captions a second.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

import filters
from benchmarks.table import write
from filters._lexicon import make_lexicon, split_at_blanks, split_at_signs

WORDS = 251_465
PHRASES = {2: 100_646 + 40_000, 3: 61_235, 4: 30_000, 6: 16_654}
NUM_CAPTIONS = 20_000
BATCH_ROWS = 1_000
Find = Callable[[str], set[str]]


def make_entries(random: np.random.Generator) -> list[str]:
    """The single words, most frequent first, then phrases of them."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = list(dict.fromkeys("".join(row) for row in random.choice(letters, (WORDS * 2, 6))))[:WORDS]
    phrases = [
        " ".join(words[place] for place in row)
        for length, count in PHRASES.items()
        for row in draw_places(random, (count, length), exponent=0.5)
    ]
    return [*words, *dict.fromkeys(phrases)]


def draw_places(random: np.random.Generator, shape: tuple[int, int], exponent: float = 1.0) -> np.ndarray:
    """Places of words, int64, by a law of Zipf whose frequencies fall with the power `exponent`."""
    frequencies = np.arange(1, WORDS + 1, dtype=np.float64) ** -exponent
    return np.searchsorted(np.cumsum(frequencies / frequencies.sum()), random.random(shape)).clip(0, WORDS - 1)


def make_captions(random: np.random.Generator, words: Sequence[str]) -> list[str]:
    """Captions of eleven words at the mean, some with signs."""
    lengths = random.lognormal(2.25, 0.5, NUM_CAPTIONS).clip(2, 60).astype(int)
    places = draw_places(random, (1, int(lengths.sum())))[0]
    ends = np.cumsum(lengths)
    texts = [[words[p] for p in places[end - n : end]] for n, end in zip(lengths, ends, strict=True)]
    return [(", " if number % 4 == 0 else " ").join(text) for number, text in enumerate(texts)]


def main() -> None:
    random = np.random.default_rng(0)
    entries = make_entries(random)
    captions = make_captions(random, entries[:WORDS])
    finders: dict[str, Callable[[], Find]] = {
        "concept_match, words": lambda: _by_lexicon(entries, words=True),
        "concept_match, metaclip": lambda: _by_lexicon(entries, words=False),
        "pyahocorasick": lambda: _by_pyahocorasick(entries),
        "ahocorasick-rs": lambda: _by_ahocorasick_rs(entries),
    }
    rows, found = list[dict[str, Any]](), dict[str, list[set[str]]]()
    for name, build in finders.items():
        try:
            rows.append(measure(name, build, captions, found))
        except ImportError:
            continue
    rows += measure_filters(entries, captions)
    alike = all(found[name] == found["concept_match, metaclip"] for name in found if name != "concept_match, words")
    if not alike:
        sys.exit("the automata and concept_match find other entries")
    notes = [
        f"{len(entries):,} entries, {NUM_CAPTIONS:,} captions; seconds of CPU of one process.",
        "The automata find the very entries of `metaclip`; those of `words` need no case and no signs.",
        f"`filter NAME` is all of a filter, on batches of {BATCH_ROWS:,} captions: `concept_match` writes the number "
        "of entries and the longest, `matched_entries` all of them, sorted. The other rows are the matching alone.",
        f"Load of the machine at the end: {os.getloadavg()[0]:.0f} on {len(os.sched_getaffinity(0))} cores, which also "
        "slows a second of CPU: compare the rows with each other.",
    ]
    sys.stdout.write(write("concepts", rows, notes, ("numpy", "pyahocorasick", "ahocorasick-rs")))


def measure(
    name: str, build: Callable[[], Find], captions: Sequence[str], found: dict[str, list[set[str]]]
) -> dict[str, Any]:
    """The row of one finder, the faster of two runs; what it found is put into `found`."""
    began = time.process_time()
    find = build()
    built = time.process_time()
    runs = []
    for _ in range(2):
        start = time.process_time()
        found[name] = [find(caption) for caption in captions]
        runs.append(time.process_time() - start)
    return {
        "matcher": name,
        "build s": round(built - began, 1),
        "captions/s": round(len(captions) / min(runs)),
        "entries a caption": round(sum(map(len, found[name])) / len(captions), 2),
        "bytes a caption": None,
    }


def measure_filters(entries: Sequence[str], captions: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the two filters that match a list, with what they write of it."""
    batches = pa.table({"caption": captions}).to_batches(BATCH_ROWS)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(entries))
        file.flush()
        return [
            _measure_filter(
                f"filter {name}, {match}", filters.build(name, {"entries": file.name, "match": match}), batches
            )
            for match in ("words", "metaclip")
            for name in ("concept_match", "matched_entries")
        ]


def _measure_filter(name: str, item: filters.Filter, batches: Sequence[pa.RecordBatch]) -> dict[str, Any]:
    """The faster of two runs over `batches`. The list was loaded for another filter, where there is no `build s`."""
    item.check_ready()
    runs, num_rows = [], sum(batch.num_rows for batch in batches)
    for _ in range(2):
        start = time.process_time()
        scored = [item.apply(batch) for batch in batches]
        runs.append(time.process_time() - start)
    num_bytes = sum(batch.nbytes for batch in scored)
    return {"matcher": name, "captions/s": round(num_rows / min(runs)), "bytes a caption": round(num_bytes / num_rows)}


def _by_lexicon(entries: Sequence[str], words: bool) -> Find:
    lexicon = make_lexicon(entries, "words" if words else "metaclip")
    split = split_at_signs if words else split_at_blanks
    return lambda caption: lexicon.match(split(caption))


def _space(caption: str) -> str:
    return f" {' '.join(split_at_blanks(caption))} "


def _by_pyahocorasick(entries: Sequence[str]) -> Find:
    automaton = importlib.import_module("ahocorasick").Automaton()
    for entry in entries:
        automaton.add_word(f" {entry} ", entry)
    automaton.make_automaton()
    return lambda caption: {entry for _, entry in automaton.iter(_space(caption))}


def _by_ahocorasick_rs(entries: Sequence[str]) -> Find:
    automaton = importlib.import_module("ahocorasick_rs").AhoCorasick([f" {entry} " for entry in entries])
    return lambda caption: {
        entries[place] for place, _, _ in automaton.find_matches_as_indexes(_space(caption), overlapping=True)
    }


if __name__ == "__main__":
    main()
