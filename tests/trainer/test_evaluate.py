"""Evaluation against brute force, on one rank and on several, and what a user can get wrong."""

from __future__ import annotations

import io
import json
import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from curation.errors import UserError
from curation.schema import ROOT_FORMAT
from curation.storage import Root
from tests.support import small_root
from tests.support.trainer import evaluation_set
from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.tower_styles import randomise
from trainer import evaluate, models, weights
from trainer.data import EvalTransform, preprocess, tokenizer
from trainer.evaluation import scores, sources, table
from trainer.launch import Rank
from trainer.objectives.contrastive_model import ContrastiveModel


def features(values: list[list[int]]) -> Tensor:
    """Small whole numbers: ties are many and exact."""
    return torch.tensor(values, dtype=torch.float32)


def expected_hit(own: set[int], similarity: list[float], k: int) -> float:
    """Share of all orders that sort `similarity` downwards which have one of `own` among their first k."""
    count = hits = 0
    for order in permutations(range(len(similarity))):
        values = [similarity[i] for i in order]
        if values == sorted(values, reverse=True):
            count += 1
            hits += bool(own & set(order[:k]))
    return hits / count


VECTORS = st.lists(st.integers(-1, 1), min_size=2, max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.lists(VECTORS, min_size=1, max_size=4), st.lists(VECTORS, min_size=0, max_size=2), st.data())
def test_recall_is_the_mean_over_all_orders_of_ties(
    image: list[list[int]], more: list[list[int]], data: st.DataObject
) -> None:
    image_of = list(range(len(image)))
    image_of += [data.draw(st.integers(0, len(image) - 1)) for _ in more]
    text = [data.draw(VECTORS) for _ in image_of]
    found = scores.score_retrieval(features(image), features(text), torch.tensor(image_of), at=(1, 2, 3))
    similarity = features(image) @ features(text).T
    for k in (1, 2, 3):
        if k <= len(text):
            own = [{t for t, i in enumerate(image_of) if i == index} for index in range(len(image))]
            hits = [expected_hit(own[i], similarity[i].tolist(), k) for i in range(len(image))]
            assert math.isclose(found[f"image_to_text_recall@{k}"], sum(hits) / len(hits))
            chance = [expected_hit(own[i], [0.0] * len(text), k) for i in range(len(image))]
            assert math.isclose(found[f"image_to_text_chance@{k}"], sum(chance) / len(chance))
        if k <= len(image):
            hits = [expected_hit({image_of[t]}, similarity[:, t].tolist(), k) for t in range(len(text))]
            assert math.isclose(found[f"text_to_image_recall@{k}"], sum(hits) / len(hits))
            assert found[f"text_to_image_chance@{k}"] == k / len(image)
        assert (f"text_to_image_recall@{k}" in found) == (k <= len(image))


def test_recall_of_many_rows_equals_that_by_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_ROWS", 7)
    torch.manual_seed(0)
    image_of = torch.cat((torch.arange(40), torch.randint(0, 40, (60,))))
    image = F.normalize(torch.randn(40, 8), dim=1)
    text = F.normalize(image[image_of] + 0.6 * torch.randn(100, 8), dim=1)
    found = scores.score_retrieval(image, text, image_of)
    for k in (1, 5, 10):
        nearest = (image @ text.T).topk(k, dim=1).indices
        hits = (image_of[nearest] == torch.arange(40)[:, None]).any(1).double().mean().item()
        assert math.isclose(found[f"image_to_text_recall@{k}"], hits) and hits > 0
        nearest = (text @ image.T).topk(k, dim=1).indices
        hits = (nearest == image_of[:, None]).any(1).double().mean().item()
        assert math.isclose(found[f"text_to_image_recall@{k}"], hits) and hits > 0
    assert found["num_images"] == 40 and found["num_captions"] == 100


def test_collapsed_features_score_as_chance_does() -> None:
    image_of = torch.tensor([0, 1, 2, 3, 3, 3])
    found = scores.score_retrieval(torch.ones(4, 3), torch.ones(6, 3), image_of, at=(1, 3))
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 3):
            assert math.isclose(found[f"{way}_recall@{k}"], found[f"{way}_chance@{k}"])


def test_classes_that_tie_share_the_hit() -> None:
    rows = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=1)
    hits = scores.count_hits(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 2]), rows)
    assert hits.first.tolist() == [0.5, 0.5, 1.0] and hits.five.tolist() == [1.0, 1.0, 1.0]
    collapsed = scores.count_hits(torch.ones(8, 2), torch.arange(8), torch.ones(8, 2)).accuracy()
    assert collapsed["accuracy"] == collapsed["chance"] == 1 / 8 and collapsed["accuracy@5"] == 5 / 8


def test_accuracy_over_pictures_and_over_classes() -> None:
    rows = torch.eye(7)
    image = torch.eye(7)[[0, 0, 1, 2, 3]] + 0.1 * torch.arange(7)  # ties go to the later class
    labels = torch.tensor([0, 0, 1, 1, 6])
    hits = scores.count_hits(image, labels, rows)
    assert hits.seen.tolist() == [2, 2, 0, 0, 0, 0, 1] and hits.first.tolist() == [2, 1, 0, 0, 0, 0, 0]
    found = hits.accuracy()
    assert math.isclose(found["accuracy"], 3 / 5, rel_tol=1e-6)
    assert math.isclose(found["mean_class_accuracy"], (1 + 0.5 + 0) / 3, rel_tol=1e-6)
    assert math.isclose(found["accuracy@5"], 4 / 5, rel_tol=1e-6)
    assert (found["chance"], found["num_images"], found["num_classes"]) == (1 / 7, 5, 7)
    assert "accuracy@5" not in scores.count_hits(image[:, :3], labels.clamp(max=2), rows[:3, :3]).accuracy()


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pictures, its captions beside it."""
    folder = evaluation_set.write_classes(tmp_path_factory.mktemp("set") / "colours")
    evaluation_set.write_captions(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A debug model on random weights."""
    model = models.build("debug")
    randomise(model)
    path = tmp_path_factory.mktemp("weights") / "debug.safetensors"
    weights.save_model(model, path)
    return path


def by_hand(checkpoint: Path, classes: Path) -> dict[str, dict[str, float]]:
    """Accuracy and recall of the set, picture by picture and prompt by prompt."""
    model = models.load(checkpoint)
    results: dict[str, dict[str, float]] = {}
    names = sorted(evaluation_set.CLASSES)
    with torch.no_grad():
        prompts = [tokenizer.tokenize(f"a photo of a {name.replace('_', ' ')}.") for name in names]
        rows = F.normalize(torch.cat([model.encode_text(prompt) for prompt in prompts]), dim=-1)
        lines = [line.split("\t") for line in classes.with_suffix(".tsv").read_text().splitlines()]
        texts = F.normalize(torch.cat([model.encode_text(tokenizer.tokenize(text)) for _, text in lines]), dim=-1)
        paths = sorted({classes.parent / name for name, _ in lines})
        for mode in ("crop", "squash"):
            transform = EvalTransform(64, mode)
            pixels = [preprocess(path.read_bytes(), transform)[None] for path in paths]
            image = F.normalize(torch.cat([model.encode_image(one) for one in pixels]), dim=-1)
            guess = (image @ rows.T).argmax(1).tolist()
            right = [names[g] == path.parent.name for g, path in zip(guess, paths, strict=True)]
            nearest = (image @ texts.T).argmax(1).tolist()
            own = [classes.parent / lines[n][0] == path for n, path in zip(nearest, paths, strict=True)]
            found = (texts @ image.T).argmax(1).tolist()
            back = [paths[n] == classes.parent / name for n, (name, _) in zip(found, lines, strict=True)]
            results[mode] = {
                "accuracy": np.mean(right), "image_to_text": np.mean(own), "text_to_image": np.mean(back),
            }  # fmt: skip
    return results


def assert_as_by_hand(found: dict[str, dict[str, dict[str, float]]], checkpoint: Path, classes: Path) -> None:
    expected = by_hand(checkpoint, classes)
    for mode, values in expected.items():
        assert math.isclose(found["colours"][mode]["accuracy"], values["accuracy"], rel_tol=1e-6)
        assert found["colours"][mode]["num_images"] == 13
        assert math.isclose(found["captions"][mode]["image_to_text_recall@1"], values["image_to_text"])
        assert math.isclose(found["captions"][mode]["text_to_image_recall@1"], values["text_to_image"])
        assert found["captions"][mode]["num_captions"] == 19
    assert found["captions"]["crop"] != found["captions"]["squash"]


def measured(checkpoint: Path, classes: Path, *overrides: str) -> evaluate.Results:
    """One process without a process group."""
    config = evaluation_set.settings(checkpoint, classes, *overrides)
    model = evaluate.load_frozen_model(config, torch.device("cpu"))
    return evaluate.measure(model, config, Rank(), torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_one_rank_measures_what_a_loop_by_hand_does(batch_size: int, checkpoint: Path, classes: Path) -> None:
    assert_as_by_hand(measured(checkpoint, classes, f"eval.batch_size={batch_size}"), checkpoint, classes)


@pytest.mark.slow
@pytest.mark.parametrize(("num_ranks", "stage"), [(2, 3), (3, 0)])
def test_several_ranks_measure_the_same(
    num_ranks: int, stage: int, checkpoint: Path, classes: Path, tmp_path: Path
) -> None:
    """Three ranks of batches of 4 for 13 pictures: the shares are unequal, and one class each."""
    arguments = {"weights_file": str(checkpoint), "classes": str(classes), "out": str(tmp_path / "out.json")}
    target = "tests.support.trainer.evaluation_set:measure"
    run_ranks(num_ranks, target, timeout_s=120, overrides=[f"zero.stage={stage}"], **arguments)
    assert_as_by_hand(json.loads((tmp_path / "out.json").read_text())["sets"], checkpoint, classes)


@pytest.mark.slow
def test_several_ranks_measure_the_same_pairs(checkpoint: Path, classes: Path, packed: Path, tmp_path: Path) -> None:
    """Three ranks share 16 pairs, padding left out."""
    arguments = {"weights_file": str(checkpoint), "classes": str(classes), "out": str(tmp_path / "out.json")}
    run_ranks(3, "tests.support.trainer.evaluation_set:measure", timeout_s=120, overrides=pairs(packed), **arguments)
    found = json.loads((tmp_path / "out.json").read_text())["sets"]
    assert_pairs_as_by_hand(found[evaluate.PAIRS], checkpoint, packed)


@pytest.mark.slow
def test_training_at_stage_3_ends_with_an_evaluation_that_does_not_hang(
    checkpoint: Path, classes: Path, tmp_path: Path
) -> None:
    arguments = {"weights_file": str(checkpoint), "classes": str(classes), "out": str(tmp_path / "out.json")}
    run_ranks(3, "tests.support.trainer.evaluation_set:after_training", timeout_s=120, **arguments)
    flat = json.loads((tmp_path / "out.json").read_text())
    expected = by_hand(checkpoint, classes)
    for mode in ("crop", "squash"):
        assert math.isclose(flat[f"colours/{mode}/accuracy"], expected[mode]["accuracy"], rel_tol=1e-6)


def test_a_benchmarks_tars_measure_the_same(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    as_tars = evaluation_set.write_class_tars(classes, tmp_path / "classes")
    captions = evaluation_set.write_caption_tars(classes, tmp_path / "captions")
    # Numbers, not names, order the tars.
    (as_tars / "test" / "1.tar").rename(as_tars / "test" / "10.tar")
    found = measured(checkpoint, classes, f"eval.image_folders.colours={as_tars}", f"eval.captions.captions={captions}")
    assert found == measured(checkpoint, classes)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("a tar is absent", "nshards.txt counts 2 tars, there are 1"),
        ("no names", "no classnames.txt"),
        ("few names", "has class '2', but classnames.txt names 2"),
        ("no label", "has no .cls beside it"),
        ("half a tar", "is no whole tar"),
        ("no retrieval", "dataset_type.txt does not say so"),
    ],
)
def test_tars_that_cannot_be_read_are_one_sentence(damage: str, says: str, classes: Path, tmp_path: Path) -> None:
    folder = evaluation_set.write_class_tars(classes, tmp_path / "set")
    tar = folder / "test" / "1.tar"
    if damage == "a tar is absent":
        tar.unlink()
    if damage == "no names":
        (folder / "classnames.txt").unlink()
    if damage == "few names":
        (folder / "classnames.txt").write_text("a\nb\n")
    if damage == "no label":
        tar.write_bytes(small_root.tar({"x.png": b"x"})[0])
    if damage == "half a tar":
        tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(UserError) as caught:
        sources.read_captions(folder) if damage == "no retrieval" else sources.read_classes(folder, ["a {}"])
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated root of 32 packed pictures."""
    made = small_root.build(Root(str(tmp_path_factory.mktemp("root"))))
    made.root.publish_json("root.json", {"format": ROOT_FORMAT, "version": "0"})
    small_root.pack(made, sorted(made.images))
    return Path(str(made.root.base))


def assert_pairs_as_by_hand(found: dict[str, dict[str, float]], checkpoint: Path, packed: Path) -> None:
    """The 16 pairs of one source, read from the shards with tarfile."""
    model = models.load(checkpoint)
    made = small_root.build(Root(str(packed)))
    uids = [uid for uid in made.images if made.samples[uid]["source"] == "laion"]
    captions = [made.samples[uid]["caption"] or "" for uid in uids]
    with torch.no_grad():
        texts = F.normalize(torch.cat([model.encode_text(tokenizer.tokenize(caption)) for caption in captions]), dim=-1)
        transform = EvalTransform(64, "crop")
        pixels = torch.stack([preprocess(made.images[uid], transform) for uid in uids])
        image = F.normalize(model.encode_image(pixels), dim=-1)
    expected = scores.score_retrieval(image, texts, torch.arange(len(uids)))
    assert found["crop"] == pytest.approx(expected) and found["crop"]["num_images"] == 16
    assert found["squash"] != found["crop"]


def pairs(packed: Path, *more: str) -> list[str]:
    """Overrides that measure one source of a curated root and nothing else."""
    sets = [f"data.root={packed}", "data.num_workers=0", "eval.retrieval=true", "eval.where=source = 'laion'"]
    return [*sets, "eval.image_folders={}", "eval.captions={}", *more]


def test_pairs_of_a_curated_root_by_query(checkpoint: Path, classes: Path, packed: Path) -> None:
    found = measured(checkpoint, classes, *pairs(packed))
    assert_pairs_as_by_hand(found[evaluate.PAIRS], checkpoint, packed)
    few = measured(checkpoint, classes, *pairs(packed, "eval.max_samples=5"))
    assert few[evaluate.PAIRS]["crop"]["num_images"] == 5
    with pytest.raises(UserError, match="nobody"):
        measured(checkpoint, classes, *pairs(packed, "eval.where=source = 'nobody'"))


def test_bfloat16_is_close(checkpoint: Path, classes: Path) -> None:
    config = evaluation_set.settings(checkpoint, classes, "train.precision=bf16")
    model = evaluate.load_frozen_model(config, torch.device("cpu"))
    assert isinstance(model, ContrastiveModel) and model.clip.logit_scale.dtype == torch.bfloat16
    pixels = torch.randn(2, 3, 64, 64)
    exact = evaluate.load_frozen_model(evaluation_set.settings(checkpoint, classes), torch.device("cpu"))
    with torch.no_grad():
        difference = (model(pixels, None).image - exact(pixels, None).image).abs().max()
    assert 0 < difference < 0.05


def test_names_and_templates_beside_the_pictures_count(tmp_path: Path) -> None:
    folder = evaluation_set.write_classes(tmp_path / "set")
    found = sources.read_classes(folder, ["a photo of a {}."])
    assert found.names == ("blue square", "green square", "red square")
    assert found.prompts[0] == ["a photo of a blue square."]
    (folder / "classes.tsv").write_text("red_square\tscarlet\nblue_square\tazure\n\ngreen_square\tlime\n")
    (folder / "templates.txt").write_text("a {}\nthe {}, seen {} times\n")
    found = sources.read_classes(folder, ["a photo of a {}."])
    assert found.prompts[2] == ["a scarlet", "the scarlet, seen scarlet times"]
    assert len(found.pictures) == 13 and found.labels == (0,) * 4 + (1,) * 4 + (2,) * 5


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("absent", "no folder"),
        ("one class", "two classes"),
        ("empty class", "has no pictures"),
        ("unnamed class", "names no green_square"),
        ("no tab", "Line 1 of"),
        ("template", "has no {} in 'a dog'"),
        ("empty templates", "is empty"),
        ("wordnet", "WordNet"),
        ("not text", "not UTF-8"),
    ],
)
def test_a_set_that_cannot_be_read_is_one_sentence(damage: str, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    if damage != "absent":
        evaluation_set.write_classes(folder)
    if damage == "one class":
        for name in ("red_square", "green_square"):
            (folder / name).rename(tmp_path / name)
    if damage == "empty class":
        (folder / "zebra").mkdir()
    if damage == "unnamed class":
        (folder / "classes.tsv").write_text("red_square\tred\nblue_square\tblue\n")
    if damage == "no tab":
        (folder / "classes.tsv").write_text("red_square red\n")
    if damage == "template":
        (folder / "templates.txt").write_text("a {}\na dog\n")
    if damage == "empty templates":
        (folder / "templates.txt").write_text("\n")
    if damage == "wordnet":
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"n0144076{number}")
    if damage == "not text":
        (folder / "classes.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError) as caught:
        sources.read_classes(folder, ["a {}"])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_broken_picture_is_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = evaluation_set.write_classes(tmp_path / "set")
    evaluation_set.write_captions(folder)
    picture = folder / "red_square" / "3.png"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(UserError, match=r"1 pictures of colours cannot be read.*red_square/3\.png"):
        measured(checkpoint, folder)


def test_captions_file_needs_its_pictures(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    (tmp_path / "c.tsv").write_text("a.png\tone\na.png\ttwo\n")
    found = sources.read_captions(tmp_path / "c.tsv")
    assert (found.texts, found.image_of, len(found.pictures)) == (("one", "two"), (0, 0), 1)
    for text, says in (("a.png\tone\nb.png\ttwo\n", "b.png"), ("a.png one\n", "Line 1"), ("", "no captions")):
        (tmp_path / "c.tsv").write_text(text)
        with pytest.raises(UserError, match=says):
            sources.read_captions(tmp_path / "c.tsv")
    with pytest.raises(UserError, match="no file"):
        sources.read_captions(tmp_path / "absent.tsv")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--weights", "{checkpoint}"], "nothing to measure"),
        (["--set", "eval.image_folders.x={classes}"], "--weights"),
        (["--weights", "absent.pt", "--set", "eval.image_folders.x={classes}"], "no checkpoint at absent.pt"),
        (["--weights", "{checkpoint}", "--set", "eval.image_folders.x=absent"], "no folder absent"),
        (["--weights", "{checkpoint}", "--set", "eval.retrieval=true"], "data.root"),
        (["--weights", "{checkpoint}", "--set", "eval.resize=['stretch']"], "'crop', 'squash'"),
        (["--config", "no-such-recipe"], "no configuration no-such-recipe"),
        (["--table", "absent.json"], "no results file"),
    ],
)
def test_wrong_use_is_one_sentence_before_anything_is_loaded(
    arguments: list[str], says: str, checkpoint: Path, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(checkpoint=checkpoint, classes=classes) for argument in arguments]
    assert evaluate.main(given) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


def test_the_published_means_are_those_of_the_table() -> None:
    """80.7 and 79.4 over the 27 sets, as the paper's abstract and table 2 say."""
    assert len(table.PUBLISHED) == 27
    means = [table.mean(column) for column in table.published_columns().values()]
    assert [round(mean, 1) for mean in means if mean is not None] == [80.7, 79.4]
    found = table.robustness(table.published_columns()["paper 18B"])
    assert found is not None
    assert math.isclose(found[0], (83.8 + 77.9 + 87.3 + 95.7 + 74.7 + 82.2) / 6) and math.isclose(
        found[1], 83.8 - found[0]
    )


def results(**accuracies: tuple[float, float]) -> evaluate.Results:
    """Set → accuracies of crop and squash."""
    return {
        name.replace("_", "-"): {"crop": {"accuracy": crop}, "squash": {"accuracy": squash}}
        for name, (crop, squash) in accuracies.items()
    }


def test_the_better_of_both_has_its_own_column_and_no_other() -> None:
    columns = table.tabulate_accuracies(results(ObjectNet=(0.822, 0.762), VOC2007=(0.824, 0.858)))
    assert {name: list(map(round, column.values())) for name, column in columns.items()} == {
        "crop": [82, 82], "squash": [76, 86], "best of both": [82, 86],
    }  # fmt: skip
    one_way = results(ObjectNet=(0.822, 0.762), VOC2007=(0.824, 0.858))
    del one_way["VOC2007"]["squash"]
    assert "best of both" not in table.tabulate_accuracies(one_way)


def test_means_are_over_the_measured_sets_and_say_so() -> None:
    text = table.format_results(results(IN_1K=(0.8, 0.7), STL10=(0.9, 0.9), my_set=(0.1, 0.1)))
    rows = {line[:31].strip(): line[31:].split() for line in text.splitlines()}
    assert rows["mean of these 2 of 27"] == ["85.0", "80.0", "85.0", "91.7", "91.4"]
    assert rows["my-set"] == ["10.0", "10.0", "10.0", "-", "-"]
    assert not any("robustness" in row for row in rows)
    six = {name.replace("-", "_"): (0.5, 0.6) for name in table.ROBUSTNESS}
    text = table.format_results(results(**six))
    assert "robustness" in text and "mean of these 6 of 27" in text


def test_command_writes_results_that_the_table_reads(
    checkpoint: Path, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    found = {"weights": "x", "precision": "fp32", "sets": measured(checkpoint, classes)}
    out.write_text(json.dumps(found))
    assert evaluate.main(["--table", str(out)]) == 0
    told = capsys.readouterr().out
    assert "colours" in told and "captions" in told and "best of both" in told
    out.write_text("{}")
    assert evaluate.main(["--table", str(out)]) == 2
