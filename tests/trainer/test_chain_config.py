"""A chain's file: what each stage starts from, what holds for it, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from tests.support.trainer.toy_chain import TEACHER_AND_STUDENT
from trainer.chain_config import SHIPPED, Stage, load_chain

THREE = f"""
folder = "runs/three"
[set.train]
batch_size = 8
{TEACHER_AND_STUDENT}
[[stages]]
name = "clip"
recipe = "debug"
from = "mim"
text_from = "teacher"
set = {{train = {{seed = 5}}, phases = [{{samples = 16}}]}}
"""


def load(folder: Path, text: str, *overrides: str) -> dict[str, Stage]:
    file = folder / "chain.toml"
    file.write_text(text)
    return {stage.name: stage for stage in load_chain(file, overrides)}


def test_each_stage_starts_from_the_weights_of_those_before_it(tmp_path: Path) -> None:
    stages = load(tmp_path, THREE, "data.root=ROOT")
    teacher, mim, clip = (stages[name].settings for name in ("teacher", "mim", "clip"))
    assert teacher and mim and mim.distill and clip
    assert (stages["teacher"].module, stages["mim"].module) == ("trainer.train", "trainer.distill")
    assert mim.distill.teacher_weights == "runs/three/teacher/model.safetensors" and mim.distill.teacher == "debug"
    # An image tower alone is all that masked image modelling ends with.
    assert (clip.model.weights, clip.model.image_weights) == ("", "runs/three/mim/model.safetensors")
    assert clip.model.text_weights == "runs/three/teacher/model.safetensors"
    assert [settings.train.batch_size for settings in (teacher, mim, clip)] == [8, 8, 8]
    assert (teacher.train.seed, clip.train.seed, clip.phases[0].samples) == (0, 5, 16)
    assert {settings.data.root for settings in (teacher, mim, clip)} == {"ROOT"}


def test_a_whole_clip_starts_a_whole_clip(tmp_path: Path) -> None:
    text = THREE + '[[stages]]\nname = "next"\nrecipe = "debug"\nfrom = "clip"\n'
    last = load(tmp_path, text, "folder=elsewhere")["next"].settings
    assert last and last.model.weights == "elsewhere/clip/model.safetensors" and last.folder == "elsewhere/next"


def test_given_weights_teach_what_the_recipe_says(tmp_path: Path) -> None:
    text = THREE.replace('name = "teacher"\nrecipe = "debug"', 'name = "teacher"\nweights = "given.pt"')
    mim = load(tmp_path, text)["mim"].settings
    assert mim and mim.distill and mim.distill.teacher_weights == "given.pt"


def test_content_is_what_decides_weights_and_not_where_or_how_fast(tmp_path: Path) -> None:
    stage = load(tmp_path, THREE)["clip"]
    for other in ("folder=elsewhere", "data.num_workers=3", "log.every_steps=5", "zero.stage=0"):
        assert load(tmp_path, THREE, other)["clip"].content() == stage.content(), other
    for other in ("train.batch_size=16", "data.where='score > 3'", "optim.name=lion", "model.drop_path=0.1"):
        assert load(tmp_path, THREE, other)["clip"].content() != stage.content(), other


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('teacher_from = "teacher"', 'teacher_from = "techer"', "'techer' is no earlier stage; the stages before it"),
        ('name = "teacher"', 'name = "teacher"\nfrom = "clip"', "from = 'clip' is no earlier stage; it is the first"),
        ('name = "clip"', 'name = "mim"', "two stages are called mim"),
        ('name = "clip"', 'name = "../clip"', "becomes a folder"),
        ('recipe = "mim-debug"\n', "", "needs a recipe to train or weights"),
        ('recipe = "mim-debug"', 'recipe = "mim-debgu"', "There is no configuration mim-debgu"),
        ('recipe = "mim-debug"', 'recipe = "debug"', "stage mim has a teacher_from, and its recipe no [distill]"),
        ('recipe = "mim-debug"', 'weights = "FILE"', "stage mim has weights, so nothing is trained"),
        ('from = "mim"', 'start = "mim"', "Unknown key 'start'"),
        ('from = "mim"', 'form = "mim"', "Unknown key 'form'"),
        ("seed = 5", "sed = 5", "Unknown key 'sed'"),
        (THREE, "folder = 'runs'", "lacks stages"),
        (THREE, "stages = []", "nothing to train"),
        (THREE, "stages = 3", "must be a list"),
    ],
)
def test_what_cannot_work_is_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        load(tmp_path, THREE.replace(old, new))
    assert said in str(raised.value)


@pytest.mark.parametrize("name", [file.stem for file in SHIPPED.glob("*.toml")])
def test_a_shipped_chain_loads(name: str) -> None:
    stages = load_chain(name)
    assert [stage.name for stage in stages] and all(stage.settings for stage in stages)


def test_the_paper_s_chain_is_weak_to_strong() -> None:
    stages = {stage.name: stage.settings for stage in load_chain("chain-eva-clip-18b")}
    teacher, mim, clip, large = (stages[name] for name in ("teacher", "mim", "clip", "clip-336"))
    assert teacher and mim and mim.distill and clip and large
    assert (teacher.model.name, mim.distill.teacher) == ("eva02-e-14-plus", "eva02-e-14-plus")
    assert {mim.model.name, clip.model.name, large.model.name} == {"eva-clip-18b"}
    assert (clip.model.image_size, large.model.image_size) == (None, 336)


def test_a_teacher_of_other_sizes_is_named_with_them(tmp_path: Path) -> None:
    text = THREE.replace('name = "teacher"', 'name = "teacher"\nset = {model = {depth = 2, width = 64}}', 1)
    stages = load(tmp_path, text)
    teacher, mim = stages["teacher"].settings, stages["mim"].settings
    assert teacher and mim and mim.distill
    assert teacher.model.sized_name == mim.distill.teacher == "debug:depth=2,width=64"
    assert stages["mim"].content() != load(tmp_path, THREE)["mim"].content()


def test_sizes_that_nobody_gives_leave_a_finished_stage_finished(tmp_path: Path) -> None:
    """Records of stages from before [model] had sizes name none."""
    from curation.settings import to_dict
    from curation.storage import fingerprint

    stage = load(tmp_path, THREE)["teacher"]
    assert stage.settings
    values = {key: to_dict(getattr(stage.settings, key)) for key in ("model", "train", "optim", "phases", "distill")}
    for size in ("depth", "width", "heads"):
        del values["model"][size]
    for phase in values["phases"]:
        del phase["clips"], phase["frames"]
    data = to_dict(stage.settings.data)
    values["data"] = {key: data[key] for key in data if key not in ("num_workers", "cache", "cache_bytes")}
    assert stage.content() == fingerprint(values)
