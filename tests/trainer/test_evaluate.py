"""Evaluation against brute force, on one rank and on several, and what a user can get wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from curation.errors import UserError
from curation.schema import ROOT_FORMAT
from curation.storage import Root
from tests.support import small_root
from tests.support.trainer import evaluation_set, point_sets, video_sets
from tests.support.trainer.ranks import run_ranks
from trainer import evaluate, models
from trainer.data import EvalTransform, preprocess, tokenizer
from trainer.evaluation import probes, prompts, scores, table
from trainer.launch import Rank
from trainer.objectives.contrastive_model import ContrastiveModel


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


def write_more_sets(classes: Path, folder: Path) -> list[str]:
    """Sets of every other kind, as overrides."""
    return [
        f"eval.paper_sets={evaluation_set.write_label_sets(classes, folder / 'sets')}",
        f"eval.videos.moves={video_sets.write_folders(folder / 'videos')}",
        f"eval.points.solids={point_sets.write_classes(folder / 'points')}",
    ]


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
    more = write_more_sets(classes, tmp_path)
    run_ranks(num_ranks, target, overrides=[f"zero.stage={stage}", *more], **arguments)
    document = json.loads((tmp_path / "out.json").read_text())
    assert_as_by_hand(document["sets"], checkpoint, classes)
    assert document["templates"] == {"VOC2007": "ours", "colours": "ours", "moves": "ours", "solids": "ours"}
    alone = measured(checkpoint, classes, *more)
    assert document["sets"].keys() == alone.keys()
    for name, by_resize in alone.items():
        for mode, values in by_resize.items():
            assert document["sets"][name][mode] == pytest.approx(values, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_several_ranks_measure_the_same_pairs(checkpoint: Path, classes: Path, packed: Path, tmp_path: Path) -> None:
    """Three ranks share 16 pairs, padding left out."""
    arguments = {"weights_file": str(checkpoint), "classes": str(classes), "out": str(tmp_path / "out.json")}
    run_ranks(3, "tests.support.trainer.evaluation_set:measure", overrides=pairs(packed), **arguments)
    found = json.loads((tmp_path / "out.json").read_text())["sets"]
    assert_pairs_as_by_hand(found[evaluate.PAIRS], checkpoint, packed)


@pytest.mark.slow
def test_training_at_stage_3_ends_with_an_evaluation_that_does_not_hang(
    checkpoint: Path, classes: Path, tmp_path: Path
) -> None:
    arguments = {"weights_file": str(checkpoint), "classes": str(classes), "out": str(tmp_path / "out.json")}
    run_ranks(3, "tests.support.trainer.evaluation_set:after_training", **arguments)
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


def test_a_set_of_the_papers_table_has_its_average_precision(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle")
    folder = evaluation_set.write_label_sets(classes, tmp_path / "sets")
    found = measured(checkpoint, classes, f"eval.paper_sets={folder}", "eval.paper_names=['VOC2007']")["VOC2007"]
    model, names = models.load(checkpoint), prompts.NAMES["VOC2007"].values()
    texts = [template.replace("{}", name) for name in names for template in prompts.TEMPLATES["VOC2007"]]
    with torch.no_grad():
        rows = F.normalize(model.encode_text(tokenizer.tokenize(texts)), dim=-1).unflatten(0, (20, -1)).mean(1)
        paths = sorted(classes.rglob("*.png"))
        pixels = torch.stack([preprocess(path.read_bytes(), EvalTransform(64, "crop")) for path in paths])
        values = F.normalize(model.encode_image(pixels), dim=-1) @ F.normalize(rows, dim=-1).T
    present = np.zeros((13, 20), bool)
    for number in range(13):
        present[number, [number % 3, number % 5]] = True
    expected = metrics.average_precision_score(present[:, :5], values[:, :5].numpy(), average="macro")
    assert found["crop"]["mean_average_precision"] == pytest.approx(expected, abs=1e-6)
    hits = [present[number, guess] for number, guess in enumerate(values.argmax(1).tolist())]
    assert found["crop"]["accuracy"] == pytest.approx(np.mean(hits))
    assert "mean average precision" in table.format_results({"VOC2007": found})


def test_a_video_is_the_mean_of_its_frames(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    folder = video_sets.write_folders(tmp_path / "set")
    found = measured(checkpoint, classes, f"eval.videos.moves={folder}", "eval.frames=[1, 3]")["moves"]
    model, names = models.load(checkpoint), ("ApplyLipstick", "Archery")
    texts = [template.replace("{}", name) for name in names for template in prompts.VIDEOS]
    with torch.no_grad():
        rows = F.normalize(model.encode_text(tokenizer.tokenize(texts)), dim=-1).unflatten(0, (2, -1)).mean(1)
        for count, chosen in ((1, [5]), (3, [1, 5, 8])):
            hits = []
            for number in range(4):
                encoded = [video_sets.encode_png(video_sets.make_frames(number)[frame]) for frame in chosen]
                pixels = torch.stack([preprocess(data, EvalTransform(64, "squash")) for data in encoded])
                mean = F.normalize(model.encode_image(pixels), dim=-1).mean(0)
                hits.append(int((F.normalize(rows, dim=-1) @ mean).argmax()) == number // 2)
            assert found["squash"][f"accuracy/{count}_frames"] == pytest.approx(np.mean(hits))
    assert "videos, accuracy in per cent" in table.format_results({"moves": found})


def test_a_video_with_a_broken_frame_is_named(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    folder = video_sets.write_folders(tmp_path / "set")
    (folder / "Archery" / "v2" / "0006.png").write_bytes(b"none")
    with pytest.raises(UserError, match=r"1 videos of moves cannot be read, the first is .*v2 \(its frame .*0006\.png"):
        measured(checkpoint, classes, f"eval.videos.moves={folder}")


def test_a_probe_of_frozen_features_is_that_of_its_features(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    folder = evaluation_set.write_probe(classes, tmp_path / "probe")
    found = measured(checkpoint, classes, f"eval.probes.colours={folder}")["colours"]
    assert found["crop"]["accuracy"] == measured(checkpoint, classes)["colours"]["crop"]["accuracy"]
    model, names = models.load(checkpoint), sorted(evaluation_set.CLASSES)
    for mode in ("crop", "squash"):
        sides = []
        for part in ("train", "test"):
            paths = sorted((folder / part).rglob("*.png"))
            pixels = torch.stack([preprocess(path.read_bytes(), EvalTransform(64, mode)) for path in paths])
            with torch.no_grad():
                features = F.normalize(model.encode_image(pixels), dim=-1)
            sides += [features, torch.tensor([names.index(path.parent.name) for path in paths])]
        expected = probes.probe(sides[0], sides[1], sides[2], sides[3], len(names))
        assert {key: found[mode][key] for key in expected} == pytest.approx(expected, rel=1e-6)
    assert "1 neighbour" in table.format_results({"colours": found})


def test_a_probe_with_other_classes_to_test_on_is_refused(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    folder = evaluation_set.write_probe(classes, tmp_path / "probe")
    (folder / "test" / "red_square").rename(folder / "test" / "red_sphere")
    settings = evaluation_set.settings(checkpoint, classes, f"eval.probes.colours={folder}")
    with pytest.raises(UserError, match="train and test have other classes"):
        evaluate.check_sets(settings)


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


def test_a_broken_picture_is_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = evaluation_set.write_classes(tmp_path / "set")
    evaluation_set.write_captions(folder)
    picture = folder / "red_square" / "3.png"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(UserError, match=r"1 pictures of colours cannot be read.*red_square/3\.png"):
        measured(checkpoint, folder)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--weights", "{checkpoint}"], "nothing to measure"),
        (["--set", "eval.image_folders.x={classes}"], "--weights"),
        (["--weights", "absent.pt", "--set", "eval.image_folders.x={classes}"], "no checkpoint at absent.pt"),
        (["--weights", "{checkpoint}", "--set", "eval.image_folders.x=absent"], "no folder absent"),
        (["--weights", "{checkpoint}", "--set", "eval.retrieval=true"], "data.root"),
        (["--weights", "{checkpoint}", "--set", "eval.resize=['stretch']"], "'crop', 'squash'"),
        (["--weights", "{checkpoint}", "--set", "eval.paper_sets={classes}"], "none of the 27 sets"),
        (["--weights", "{checkpoint}", "--set", "eval.paper_names=['Pets']"], "name its folder"),
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


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{", "[]", '{"sets": {"a": {"crop": {"accuracy": "high"}}}}', '{"sets": {"a": 3}}', "\xff"]
)
def test_a_file_that_holds_no_results_is_one_sentence(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_bytes(text.encode("latin-1"))
    assert evaluate.main(["--table", str(tmp_path / "r.json")]) == 2
    told = capsys.readouterr().err
    assert "is no results file" in told and told.count("\n") == 1


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
