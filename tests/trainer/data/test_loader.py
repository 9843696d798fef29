"""The loader's promises: every sample once an epoch, the same order for any layout, and resume by equality."""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.errors import UserError
from curation.storage import Root
from tests.support.trainer import roots
from tests.trainer.data.conftest import NUM_ROWS, Packed
from trainer.data import Loader, Shuffle, TrainTransform, batches

LAYOUTS = st.tuples(st.integers(1, 4), st.integers(1, 9))
"""(world size, batch size of a rank)"""


SHUFFLES = st.sampled_from(
    [False, Shuffle(block_rows=4, window_rows=32), Shuffle(block_rows=6, window_rows=6, run_rows=3)]
)


NUMS = st.sampled_from([1, 20, 37, 128, NUM_ROWS])
"""Rows selected; few enough that their indexes stay in the cache."""


SELECTIONS: dict[str, Callable[[int], bool]] = {
    "true": lambda k: True,
    "score < 37": lambda k: k < 37,
    "score % 7 = 3": lambda k: k % 7 == 3,
    "score = 200": lambda k: k == 200,
    "source = 'coyo' and score % 4 <> 0": lambda k: k % 6 in (3, 4) and k % 4 != 0,
    "caption is null or score between 100 and 131": lambda k: k % 10 == 9 or 100 <= k <= 131,
}
"""Condition → which of the rows it keeps: dense, sparse, one row, scattered over the shards."""


SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)


def _loader(packed: Packed, **options: Any) -> Loader:
    chosen = {"batch_size": 4, "transform": None, "tokenizer": None, "index_folder": packed.cache} | options
    return Loader(packed.root, **chosen)


def _ranks(packed: Packed, layout: tuple[int, int], **options: Any) -> list[Loader]:
    world_size, batch_size = layout
    return [
        _loader(packed, rank=rank, world_size=world_size, batch_size=batch_size, **options)
        for rank in range(world_size)
    ]


def _uids(batch: dict[str, Any]) -> list[str]:
    return batch["uid"][: len(batch["uid"]) - batch["padding"]]


def _sequence(ranks: list[Loader], num_batches: int | None = None) -> list[str]:
    """What all ranks see, in the order of the global batches, without padding; at most `num_batches` of them."""
    steps = itertools.islice(zip(*ranks, strict=True), num_batches)
    return [uid for step in steps for batch in step for uid in _uids(batch)]


@SHARED
@given(LAYOUTS, SHUFFLES, st.integers(0, 2**31), st.integers(0, 5), st.sampled_from(sorted(SELECTIONS)))
def test_every_selected_uid_exactly_once(
    packed: Packed, layout: tuple[int, int], shuffle: Any, seed: int, epoch: int, where: str
) -> None:
    selected = [uid for k, uid in enumerate(packed.uids) if SELECTIONS[where](k)]
    num = len(selected)
    ranks = _ranks(packed, layout, where=where, shuffle=shuffle, seed=seed, epoch=epoch)
    steps = list(zip(*ranks, strict=True))
    seen = [uid for step in steps for batch in step for uid in _uids(batch)]
    assert sorted(seen) == selected
    # The padding rule: whole batches everywhere, filled from the start of the same epoch.
    assert all(len(batch["uid"]) == layout[1] for step in steps for batch in step)
    padding = [uid for batch in steps[-1] for uid in batch["uid"][layout[1] - batch["padding"] :]]
    assert len(padding) == -num % (layout[0] * layout[1])
    assert padding == list(itertools.islice(itertools.cycle(seen), len(padding)))
    assert len(ranks[0]) == len(steps)


@SHARED
@given(LAYOUTS, NUMS)
def test_drop_leaves_out_the_incomplete_batch(packed: Packed, layout: tuple[int, int], num: int) -> None:
    whole = _sequence(_ranks(packed, (1, 1), where=f"score < {num}"))
    found = _sequence(_ranks(packed, layout, where=f"score < {num}", last="drop"))
    assert found == whole[: num - num % (layout[0] * layout[1])]


@SHARED
@given(
    LAYOUTS,
    st.lists(st.tuples(st.integers(0, 12), LAYOUTS), min_size=1, max_size=3),
    SHUFFLES,
    st.sampled_from(sorted(set(SELECTIONS) - {"score = 200", "source = 'coyo' and score % 4 <> 0"})),
    st.sampled_from([None, {"laion": 0.2, "coyo": 0.5, "commonpool": 0.3}]),
)
def test_resume_by_equality(
    packed: Packed, layout: tuple[int, int], kills: list[Any], shuffle: Any, where: str, mix: dict[str, float] | None
) -> None:
    """Killed at any points and resumed with other world sizes, the batches together are those of one quiet run."""
    options: dict[str, Any] = {"where": where, "shuffle": shuffle, "seed": 3, "mix": mix}
    first, second = (_sequence(_ranks(packed, (1, 1), epoch=epoch, **options)) for epoch in (0, 1))
    found: list[str] = []
    ranks = _ranks(packed, layout, **options)
    for num_batches, next_layout in kills:
        num_batches = min(num_batches, len(ranks[0]._make_schedule(ranks[0].samples_seen)) - 1)
        found += _sequence(ranks, num_batches)
        states = [json.dumps(loader.state_dict()) for loader in ranks]
        assert len(set(states)) == 1, "a checkpoint of any rank serves every rank"
        ranks = _ranks(packed, next_layout, **options)
        for loader in ranks:
            loader.load_state_dict(json.loads(states[0]))
    found += _sequence(ranks)
    assert found == first
    assert _sequence(ranks) == second, "the next epoch follows"


def test_a_state_at_the_end_of_an_epoch_begins_the_next(packed: Packed) -> None:
    loader = _loader(packed, batch_size=NUM_ROWS)
    next(iter(loader))
    assert loader.samples_seen == 0 or loader.samples_seen >= NUM_ROWS
    resumed = _loader(packed)
    resumed.load_state_dict({**loader.state_dict(), "samples_seen": NUM_ROWS, "epoch": 0})
    assert (resumed.epoch, resumed.samples_seen) == (1, 0)


@SHARED
@given(st.integers(1, 7), st.integers(1, 9), SHUFFLES)
def test_workers_do_not_change_the_order(packed: Packed, workers: int, batch_size: int, shuffle: Any) -> None:
    """Each worker's share, made apart and dealt out in turn as torch does, is the sequence of one process."""
    alone = [batch["uid"] for batch in _loader(packed, batch_size=batch_size, shuffle=shuffle)]
    loader = _loader(packed, batch_size=batch_size, shuffle=shuffle)
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        for number in range(workers):
            info = SimpleNamespace(id=number, num_workers=workers)
            patch.setattr(batches, "get_worker_info", lambda info=info: info)
            made = batches.Batches(loader._source, loader._form, loader._make_schedule(0))
            parts.append([batch.tensors["uid"] for batch in made])
    dealt = [uids for turn in itertools.zip_longest(*parts) for uids in turn if uids is not None]
    assert dealt == alone


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    folder = tmp_path_factory.mktemp("pictures")
    root = Root(folder / "root")
    return Packed(root, roots.packed(root, 50, pictures=True), folder / "cache")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_real_workers_give_the_same_tensors(pictures: Packed, workers: int) -> None:
    # More workers than this machine has cores is what the test wants.
    def epoch(num_workers: int, skip: int = 0) -> list[dict[str, Any]]:
        options: dict[str, Any] = {"transform": TrainTransform(24), "seed": 9, "num_workers": num_workers}
        loader = Loader(pictures.root, batch_size=8, index_folder=pictures.cache, **options)
        if skip:
            loader.load_state_dict({**loader.state_dict(), "samples_seen": 8 * skip})
        return list(loader)

    alone = epoch(0)
    for found, wanted in ((epoch(workers), alone), (epoch(workers, 3), alone[3:])):
        assert [b["uid"] for b in found] == [b["uid"] for b in wanted]
        assert all(torch.equal(f["pixels"], w["pixels"]) for f, w in zip(found, wanted, strict=True))
        assert all(torch.equal(f["tokens"], w["tokens"]) for f, w in zip(found, wanted, strict=True))
    assert alone[0]["pixels"].shape == (8, 3, 24, 24) and alone[0]["tokens"].shape == (8, 77)
    assert alone[-1]["padding"] == 6


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("seed", range(6))
def test_real_workers_resume_in_another_layout(pictures: Packed, seed: int) -> None:
    """Stopped at random points and resumed with other ranks, batches and worker processes: equal to the last pixel."""
    rng = random.Random(seed)
    options: dict[str, Any] = {"transform": TrainTransform(16), "tokenizer": None, "seed": seed}
    options |= {"index_folder": pictures.cache, "shuffle": Shuffle(block_rows=4, window_rows=16)}

    def ranks(world_size: int, batch_size: int, workers: int) -> list[Loader]:
        layout = {"world_size": world_size, "batch_size": batch_size, "num_workers": workers}
        return [Loader(pictures.root, rank=rank, **layout, **options) for rank in range(world_size)]

    def samples(loaders: list[Loader], num_batches: int | None = None) -> list[tuple[str, bytes, str]]:
        found = []
        for step in itertools.islice(zip(*loaders, strict=True), num_batches):
            for batch in step:
                whole = len(batch["uid"]) - batch["padding"]
                pixels = [picture.numpy().tobytes() for picture in batch["pixels"][:whole]]
                found += list(zip(batch["uid"], pixels, batch["tokens"], strict=False))
        return found

    quiet = samples(ranks(1, 5, 0))
    running, found = ranks(rng.randint(1, 3), rng.randint(1, 6), rng.randint(0, 3)), []
    for _ in range(3):
        left = len(running[0]._make_schedule(running[0].samples_seen))
        found += samples(running, rng.randint(0, min(4, left - 1)))
        state = running[0].state_dict()
        running = ranks(rng.randint(1, 3), rng.randint(1, 6), rng.randint(0, 3))
        for loader in running:
            loader.load_state_dict(state)
    assert found + samples(running) == quiet


def test_a_killed_worker_is_an_error_and_no_hang(packed: Packed) -> None:
    """kill -9, as the kernel does when memory runs out."""
    loader = _loader(packed, num_workers=2, batch_size=1)
    before = set(_children())
    run = iter(loader)
    next(run)
    (victim, *_) = [pid for pid in _children() if pid not in before]
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(UserError, match="A worker of the loader died .*resume from the last checkpoint"):
        for _ in run:
            time.sleep(0.01)


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def test_each_epoch_has_its_own_order_and_each_seed(packed: Packed) -> None:
    orders = [_sequence([_loader(packed, seed=seed, epoch=epoch)]) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    loader = _loader(packed)
    assert [_sequence([loader]), _sequence([loader])] == orders[:2]
    loader.set_epoch(0)
    assert _sequence([loader]) == orders[0]


def test_mixing_keeps_its_shares_in_every_stretch(packed: Packed) -> None:
    weights = {"laion": 0.2, "coyo": 0.5, "commonpool": 0.3}
    loader = _loader(packed, mix=weights, batch_size=10, epoch_samples=600, last="drop")
    source = {uid: roots.SOURCES[(k % 6 > 2) + (k % 6 > 4)] for k, uid in enumerate(packed.uids)}
    seen = [uid for batch in loader for uid in batch["uid"]]
    assert len(seen) == 600
    for stop in range(1, 601):
        counts = collections.Counter(source[uid] for uid in seen[:stop])
        assert all(abs(counts[name] - stop * share) < 3 for name, share in weights.items())
    # Within a source, no row comes a second time before every row has come once.
    times = collections.Counter(seen)
    for name in weights:
        counts = [times[uid] for uid in packed.uids if source[uid] == name]
        assert max(counts) - min(counts) <= 1
    # A mix leaves out what it does not name.
    only = _loader(packed, mix={"coyo": 1.0})
    assert {source[uid] for batch in only for uid in batch["uid"]} == {"coyo"}


def test_captions_beside_the_picture_and_from_columns(packed: Packed) -> None:
    number = {uid: k for k, uid in enumerate(packed.uids)}
    for batch in _loader(packed):
        assert batch["tokens"] == [roots.caption(number[uid]) or "" for uid in batch["uid"]]
        for uid, data in zip(batch["uid"], batch["pixels"], strict=True):
            assert data == roots.picture(number[uid], uid, False)
    top = _loader(packed, captions={"top_caption": 1.0})
    for batch in top:
        for uid, text in zip(batch["uid"], batch["tokens"], strict=True):
            assert text == (f"top caption of {number[uid]}" if number[uid] % 2 == 0 else "")


@pytest.mark.parametrize(
    ("where", "options", "number"),
    [
        ("true", {}, sum(roots.caption(k) is None for k in range(NUM_ROWS))),
        ("score < 10", {}, 1),
        ("true", {"captions": {"top_caption": 1.0}}, NUM_ROWS // 2),
        ("score < 20", {"captions": {"caption": 0.5, "top_caption": 0.5}}, 2),
        ("caption is not null", {}, 0),
    ],
)
def test_samples_without_a_caption_are_counted_in_the_log(
    packed: Packed, caplog: pytest.LogCaptureFixture, where: str, options: dict[str, Any], number: int
) -> None:
    for _ in range(2):  # the second loader finds the index of the first
        caplog.clear()
        with caplog.at_level("INFO", "trainer"):
            loader = _loader(packed, where=where, **options)
        said = [f"{number} of {len(loader.index)} samples have no caption"] if number else []
        assert [record.message for record in caplog.records] == said


def test_captions_are_drawn_by_weight_and_fall_back(packed: Packed) -> None:
    number = {uid: k for k, uid in enumerate(packed.uids)}
    drawn: list[bool] = []
    loaders = [_loader(packed, captions={"caption": 0.25, "top_caption": 0.75}, batch_size=6) for _ in range(2)]
    for _ in range(8):
        for batch, again in zip(*loaders, strict=True):
            assert batch["tokens"] == again["tokens"]
            for uid, text in zip(_uids(batch), batch["tokens"], strict=False):
                k = number[uid]
                one, other = roots.caption(k), f"top caption of {k}" if k % 2 == 0 else None
                assert text in {one, other} - {None} if one or other else text == ""
                if one and other:
                    drawn.append(text == other)
    assert len(drawn) > 500 and abs(sum(drawn) / len(drawn) - 0.75) < 0.06


def test_phases_change_data_and_each_resumes_alone(packed: Packed) -> None:
    """The 18B schedule: another selection and mix after so many samples; a state fits its own phase only."""
    one = _loader(packed, where="source = 'laion'", batch_size=5)
    two = _loader(packed, where="source <> 'laion'", mix={"coyo": 0.8, "commonpool": 0.2}, batch_size=5)
    first = list(itertools.islice(one, 4))
    state = one.state_dict()
    assert state["samples_seen"] == 20 and sum(len(b["uid"]) for b in first) == 20
    seen_two = {uid for batch in two for uid in batch["uid"]}
    assert not seen_two & {uid for batch in first for uid in batch["uid"]}
    with pytest.raises(UserError, match="another order of samples .epoch_samples, mix, selection differ"):
        two.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": "score > 10000"}, r"No row of .* is left WHERE score > 10000"),
        ({"where": "scoer > 1"}, "scoer"),
        ({"mix": {"web": 1}}, "names 'web', which has no selected row; sources with rows: commonpool"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"rank": 2, "world_size": 2}, r"rank must lie in 0\.\.1"),
        ({"last": "ignore"}, "allowed: pad, drop"),
        ({"captions": {"alt": 1.0}}, "alt"),
        ({"table": "raw"}, "allowed: auto, train_index, manifest"),
    ],
)
def test_bad_arguments_are_one_sentence(packed: Packed, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        _loader(packed, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no root"):
        Loader(tmp_path, batch_size=1, transform=None)
