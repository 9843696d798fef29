"""The benchmark of curation: its pool has the harm that it says, and its intervals and plot tell what was measured."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import curation_value, curation_value_arms, curation_value_results
from benchmarks.curation_value_arms import Arm, compute_pretraining_cost
from benchmarks.curation_value_pool import CAPTIONS, COPY, DAMAGES, HELD, RIGHT, TRUTH, WRONG, Photographs, make_pool
from trainer.config import load_config

NUM_FILES, NUM_LABELLED, SCALE = 60, 20, 0.02


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    """NUM_FILES pictures of noise with five captions each; of the first NUM_LABELLED two right and one wrong pair."""
    rng, images = np.random.default_rng(1), tmp_path / "images"
    images.mkdir()
    names = [f"{number:03d}.jpg" for number in range(NUM_FILES)]
    for name in names:
        small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((160, 160)).save(images / name, quality=95)
    captions = {name: [f"caption {k} of {name}" for k in range(5)] for name in names}
    labels = {(name, captions[name][k]): True for name in names[:NUM_LABELLED] for k in range(2)}
    labels |= {(name, f"of another than {name}"): False for name in names[:NUM_LABELLED]}
    return Photographs(images, captions, labels)


@pytest.fixture
def pool(photographs: Photographs, tmp_path: Path) -> Path:
    make_pool(photographs, tmp_path / "made", SCALE)
    return tmp_path / "made"


def test_the_pool_has_the_harm_that_it_says_and_says_what_each_row_is(pool: Path) -> None:
    rows = json.loads((pool / TRUTH).read_text())
    counts = Counter(kind for *_, kind in rows)
    assert counts == {RIGHT: 40, WRONG: 20, COPY: 70} | {kind: round(count * SCALE) for kind, count in DAMAGES.items()}
    assert len({(file, caption) for file, caption, _ in rows}) == len(rows)
    for file, caption, kind in rows:
        with Image.open(pool / "pictures" / "pool" / file) as picture:
            assert (max(picture.size) <= 40) == (kind == "tiny")
        assert caption.startswith("caption ") == (kind in (RIGHT, COPY, "tiny", "blurred"))


def test_copies_are_smaller_than_their_original_and_keep_its_caption(pool: Path) -> None:
    rows = json.loads((pool / TRUTH).read_text())
    originals = {caption: file for file, caption, kind in rows if kind == RIGHT}
    copies = [(file, caption) for file, caption, kind in rows if kind == COPY]
    counts = Counter(caption for _, caption in copies)
    assert set(counts) <= set(originals) and len(counts) == 2 and max(counts.values()) > 1.3 * min(counts.values())
    for file, caption in copies:
        with Image.open(pool / "pictures" / "pool" / file) as copy:
            assert copy.width < 160 and originals[caption] != file


def test_no_photograph_is_in_two_parts(pool: Path, photographs: Photographs) -> None:
    trusted = {path.name for path in (pool / "pictures" / "trusted").iterdir()}
    held = {Path(line.partition("\t")[0]).name for line in (pool / HELD).read_text().splitlines()}
    labelled = {file for file, _ in photographs.labels}
    assert trusted and held and not trusted & held and not (trusted | held) & labelled
    used = {caption for line in (pool / CAPTIONS).read_text().splitlines() for caption in line.split(",")[1:]}
    assert not used & {caption for file in held for caption in photographs.captions[file]}


def test_the_same_pool_comes_out_twice(pool: Path, photographs: Photographs, tmp_path: Path) -> None:
    make_pool(photographs, tmp_path / "again", SCALE)
    for path in sorted((tmp_path / "again").rglob("*.jpg")):
        assert path.read_bytes() == (pool / path.relative_to(tmp_path / "again")).read_bytes()
    assert (tmp_path / "again" / TRUTH).read_bytes() == (pool / TRUTH).read_bytes()


def test_places_are_those_of_sorted_similarities() -> None:
    rng = np.random.default_rng(2)
    similarities, image_of = rng.normal(size=(12, 4)), np.arange(12) // 3
    places = curation_value.count_before(similarities, image_of)
    for caption, image in enumerate(image_of):
        assert places["text_to_image"][caption] == list(np.argsort(-similarities[caption])).index(image)
    for image in range(4):
        order = list(np.argsort(-similarities[:, image]))
        assert places["image_to_text"][image] == min(order.index(own) for own in range(3 * image, 3 * image + 3))
    counted = curation_value_results.score_photographs(**places)
    assert counted.shape == (4, 2) and counted[:, 1].tolist() == pytest.approx(
        [
            (np.mean(places["text_to_image"][image_of == n] < 10) + (places["image_to_text"][n] < 10)) / 2
            for n in range(4)
        ]
    )


def make_runs(folder: Path, recalls: dict[str, float], seeds: int = 3) -> None:
    """Runs that have ended, whose captions and photographs find each other with a probability."""
    rng, image_of = np.random.default_rng(3), np.arange(1_000) // 5
    for number, (arm, recall) in enumerate(recalls.items()):
        for seed in range(seeds):
            run = folder / "runs" / f"{arm}-{seed}"
            run.mkdir(parents=True)
            places = {
                "text_to_image": np.where(rng.random(1_000) < recall, 0, 50),
                "image_to_text": np.where(rng.random(200) < recall, 0, 50),
            }
            np.savez(run / "places.npz", image_of=image_of, **places)
            row = {"arm": arm, "number": number, "seed": seed, "where": f"arm {arm}", "samples": 8, "pretrained": 0}
            (run / "row.json").write_text(json.dumps(row))


def test_a_gain_is_told_with_an_interval_that_holds_it(tmp_path: Path) -> None:
    make_runs(tmp_path, {"raw": 0.2, "all": 0.3, "known right": 0.2})
    found = curation_value_results.read_runs(tmp_path)
    assert list(found) == ["raw", "all", "known right"] and found["all"][1].shape == (3, 200, 2)
    draws = curation_value_results.draw_recalls({name: values for name, (_, values) in found.items()})
    low, high = curation_value_results.interval(draws["all"][:, -1] / draws["raw"][:, -1] - 1)
    assert 0.2 < low < 0.5 < high < 0.8
    low, high = curation_value_results.interval(draws["known right"][:, -1] / draws["raw"][:, -1] - 1)
    assert low < 0 < high
    assert "`all` over `raw`: +" in curation_value_results.compare(draws, found, "all", "raw")
    assert not curation_value_results.compare(draws, found, "all after MIM", "raw")


def test_what_a_rule_removes_is_counted_by_kind() -> None:
    kinds = {"a": RIGHT, "b": RIGHT, "c": WRONG, "d": WRONG, "e": COPY}
    row = curation_value_results.describe_rule(kinds, "one", {"b", "d"})
    assert (row["removed"], row["precision"], row["recall"]) == (3, 2 / 3, 2 / 3)
    assert (row[RIGHT], row[WRONG], row[COPY], row["tiny"]) == (0.5, 0.5, 1.0, 0.0)


def test_the_results_have_a_table_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_runs(tmp_path, {"raw": 0.2, "all": 0.3})
    monkeypatch.setattr("benchmarks.table.RESULTS", tmp_path / "results")
    monkeypatch.setattr(curation_value_results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(curation_value_results, "read_kinds", lambda folder: {"a": RIGHT, "b": WRONG})
    monkeypatch.setattr(curation_value_results, "list_conditions", lambda folder: {"dfn": "dfn > 0"})
    monkeypatch.setattr(
        curation_value_results, "_select", lambda folder, where: {"a"} if "all" in where else {"a", "b"}
    )
    text = curation_value_results.write_results(tmp_path)
    rows = json.loads((tmp_path / "results" / "curation_value.json").read_text())["rows"]
    assert [(row["arm"], row["seeds"], row["right"]) for row in rows] == [("raw", 3, 0.5), ("all", 3, 1.0)]
    assert rows[0]["@10 low"] < rows[0]["recall@10"] < rows[0]["@10 high"] < rows[1]["@10 low"]
    assert "`all` over `raw`: +" in text and "Chance is 0.050" in text
    with Image.open(tmp_path / "results" / "curation_value.png") as plot:
        pixels = np.asarray(plot.convert("RGB"))
    longest = [(row == (0x3B, 0x74, 0xA0)).all(1).sum() for row in pixels]
    assert max(longest) > 400 and pixels.min() < 60


def test_without_a_run_of_raw_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    make_runs(tmp_path, {"all": 0.3})
    with pytest.raises(SystemExit, match="No run of the arm raw has ended"):
        curation_value_results.write_results(tmp_path)


def test_a_step_that_ended_is_not_run_again_and_one_that_failed_is(tmp_path: Path) -> None:
    line = ["sh", "-c", f"echo one >> {tmp_path / 'told'}; exit $(cat {tmp_path / 'status'})"]
    (tmp_path / "status").write_text("3")
    with pytest.raises(SystemExit, match="step ended with status 3: see .*step.log"):
        curation_value.run_once(tmp_path, "step", line)
    (tmp_path / "status").write_text("0")
    for _ in range(2):
        curation_value.run_once(tmp_path, "step", line)
    assert (tmp_path / "told").read_text() == "one\n" * 2


def test_each_run_is_a_configuration_that_the_trainer_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: dict[str, list[str]] = {}
    monkeypatch.setattr(curation_value, "run_once", lambda folder, name, line: lines.update({name: line}))
    monkeypatch.setattr(
        curation_value,
        "find_places",
        lambda *_: dict.fromkeys(("text_to_image", "image_to_text", "image_of"), np.zeros(1, int)),
    )
    arm = Arm(name="all after MIM", where="source = 'pool' and kept", samples=512, pretrained=256)
    run = curation_value.Run(arm=arm, number=0, seed=7, folder=tmp_path / "runs" / "one")
    row: dict[str, Any] = curation_value.train_and_measure(tmp_path, run)
    assert row["recall@10"] == 1 and run.is_done
    settings = {}
    for name, line in lines.items():
        assert line[2] == f"trainer.{name}"
        settings[name] = load_config(line[4], [word for word in line[5:] if word != "--set"])
    assert settings["distill"].distill is not None and settings["distill"].phases[0].samples == 256
    assert settings["train"].model.image_weights == f"{run.folder / 'distill' / 'model.safetensors'}"
    assert all(one.data.where == arm.where and one.train.seed == 7 for one in settings.values())


def test_what_is_compared_is_trained_first_and_what_has_ended_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["raw", "all", "all after MIM", "all for longer", "known right"]
    arms = [Arm(name=name, where="true", samples=8) for name in names]
    order: list[str] = []

    def train_one(folder: Path, run: curation_value.Run) -> dict[str, Any]:
        order.append(f"{run.arm.name}-{run.seed}")
        run.folder.mkdir(parents=True)
        (run.folder / "row.json").write_text("{}")
        return {"arm": run.arm.name, "seed": run.seed, "recall@10": 0.25}

    monkeypatch.setattr(curation_value, "prepare", lambda *_: None)
    monkeypatch.setattr(curation_value, "list_arms", lambda *_: arms)
    monkeypatch.setattr(curation_value, "train_and_measure", train_one)
    monkeypatch.setattr(curation_value, "write_results", lambda folder: "the table")
    line = ["--photographs", str(tmp_path), "--folder", str(tmp_path), "--seeds", "2", "--processes", "1"]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["curation_value", *line])
        curation_value.main()
    assert order == [f"{name}-{seed}" for part in (names[:4], names[4:]) for seed in range(2) for name in part]
    told = capsys.readouterr()
    assert "raw, seed 0: recall@10 0.2500; 1 of 10, " in told.err and told.out == "the table" * 2


def test_a_quantile_becomes_the_number_of_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.toml").write_text(curation_value.RECIPE.read_text())
    entries = [
        {"column": "dfn", "share": 0.5, "value": value, "by": {"source": name}}
        for name, value in (("pool", 0.25), ("trusted", 0.5))
    ]
    monkeypatch.setattr(curation_value_arms.Root, "current", lambda self, table: {"config": {"quantiles": entries}})
    conditions = curation_value_arms.list_conditions(tmp_path)
    assert conditions["dfn"] == "(dfn >= 0.25)" and conditions["duplicates"] == "(duplicate_of is null)"


def test_every_arm_has_its_query_and_half_of_the_compute_is_half_of_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curation_value_arms, "list_conditions", lambda folder: {"dfn": "(dfn >= 0.25)"})
    monkeypatch.setattr(curation_value_arms, "read_kinds", lambda folder: {"a": RIGHT, "b": WRONG, "c": COPY})
    arms = {arm.name: arm for arm in curation_value_arms.list_arms(tmp_path, 1_000)}
    assert arms["dfn"].where == "source = 'pool' and (dfn >= 0.25)" and arms["all"].where == "source = 'pool' and kept"
    assert pq.read_table(tmp_path / "right.parquet")["uid"].to_pylist() == ["a"]
    assert f"'{tmp_path / 'right.parquet'}'" in arms["known right"].where
    after, half = arms["all after MIM"], arms["all after MIM, half"]
    assert (after.samples, after.pretrained, half.samples, half.pretrained) == (1_000, 1_000, 500, 500)
    assert arms["all for longer"].samples == 1_000 + round(1_000 * compute_pretraining_cost())
    assert all(arm.pretrained == 0 for name, arm in arms.items() if "MIM" not in name)


def test_pretraining_costs_about_as_much_as_training() -> None:
    assert 0.5 < compute_pretraining_cost() < 4 / 3
