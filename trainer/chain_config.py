"""A chain of training stages as its TOML file describes it, and each stage as a run of its own.

    folder = "runs/chain"
    [[stages]]
    name = "teacher"
    recipe = "eva02-e-14-plus"          # or: weights = "FILE", which somebody else trained
    [[stages]]
    name = "mim"
    recipe = "mim-eva-clip-18b"
    teacher_from = "teacher"            # from, image_from, text_from likewise
    [stages.set]
    train.seed = 1                      # as --set, for this stage only

Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.errors import UserError
from curation.settings import find_config, from_dict, read_toml, to_dict
from curation.storage import fingerprint
from trainer.config import Config, load_config
from trainer.models.configs import SIZES

SHIPPED = Path(__file__).parent / "chains"
WEIGHTS = "model.safetensors"
_TARGETS = {"start": "model.weights", "image_from": "model.image_weights", "text_from": "model.text_weights"}
_CONTENT = ("model", "train", "optim", "phases", "distill")
_UNREAD_DATA = ("num_workers", "cache", "cache_bytes")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage: a recipe to train, or weights that are there; the `…_from` name earlier stages."""

    name: str
    recipe: str = ""
    weights: str = ""
    start: str = ""
    """`from` in the file: where the whole model starts; the image tower alone when that stage trained no more."""
    image_from: str = ""
    text_from: str = ""
    teacher_from: str = ""
    set: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or not all(part.isalnum() for part in self.name.replace("_", "-").split("-")):
            raise ValueError(f"the name {self.name!r} becomes a folder: use letters, digits, - and _")
        if bool(self.recipe) == bool(self.weights):
            raise ValueError(f"stage {self.name} needs a recipe to train or weights that are there, one of the two")
        if self.weights and (self.set or any(self.sources.values())):
            raise ValueError(f"stage {self.name} has weights, so nothing is trained: remove its other keys")

    @property
    def sources(self) -> dict[str, str]:
        """Key → the stage it names, "" for none."""
        return {key: getattr(self, key) for key in (*_TARGETS, "teacher_from")}


@dataclass(frozen=True, kw_only=True)
class ChainConfig:
    """The file: stages in their order, all of them below `folder`; `set` holds for each of them."""

    stages: tuple[StageConfig, ...]
    folder: str = "runs/chain"
    set: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known: list[str] = []
        for stage in self.stages:
            for key, source in stage.sources.items():
                if source and source not in known:
                    told = f"the stages before it are {', '.join(known)}" if known else "it is the first"
                    raise ValueError(f"stage {stage.name}: {_spell(key)} = {source!r} is no earlier stage; {told}")
            if stage.name in known:
                raise ValueError(f"two stages are called {stage.name}")
            known.append(stage.name)
        if not known:
            raise ValueError("there is no [[stages]], so nothing to train")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage as a run. `weights` is what it ends with, `inputs` the stages that it starts from."""

    name: str
    recipe: str
    overrides: tuple[str, ...]
    settings: Config | None
    """None for weights that somebody else trained."""
    weights: Path
    inputs: Mapping[str, str]
    """Setting of the run → the stage whose weights it names."""

    @property
    def module(self) -> str:
        """The command that trains it."""
        return "trainer.distill" if self.settings and self.settings.distill else "trainer.train"

    def override_inputs(self, paths: Mapping[str, Path]) -> list[str]:
        """The overrides of the run when the stages' weights lie at `paths`."""
        return [*self.overrides, *(f"{key}={json.dumps(str(paths[name]))}" for key, name in self.inputs.items())]

    def content(self) -> str:
        """What decides the stage's weights, beside those it starts from, as a fingerprint."""
        values = {key: to_dict(getattr(self.settings, key)) for key in _CONTENT}
        # Stages that were finished before a model could have other sizes, and a phase clips, stay so.
        values["model"] = {
            key: value for key, value in values["model"].items() if key not in SIZES or value is not None
        }
        for phase in values["phases"]:
            if not phase["clips"]:
                del phase["clips"], phase["frames"]
        data = to_dict(self.settings.data) if self.settings else {}
        values["data"] = {key: value for key, value in data.items() if key not in _UNREAD_DATA}
        for path in self.inputs:
            section, _, key = path.partition(".")
            values[section][key] = ""
        return fingerprint(values)


def load_chain(path: str | Path, overrides: Sequence[str] = ()) -> list[Stage]:
    """The chain's stages in their order; `overrides` (`section.key=value`) hold for every stage. Raises UserError."""
    file = find_config(path, SHIPPED, "chain")
    data = read_toml(file)
    stages = data.get("stages")
    if isinstance(stages, list):
        data["stages"] = [_rename_from(stage, str(file)) for stage in stages]
    chain = from_dict(ChainConfig, data, str(file))
    own = [text for text in overrides if text.partition("=")[0].strip() == "folder"]
    folder = Path(own[-1].partition("=")[2].strip().strip('"') if own else chain.folder)
    shared = [*_flatten(chain.set), *(text for text in overrides if text not in own)]
    resolved: dict[str, Stage] = {}
    for stage in chain.stages:
        resolved[stage.name] = _resolve(stage, folder, shared, resolved, file)
    return list(resolved.values())


def _resolve(
    stage: StageConfig, folder: Path, shared: Sequence[str], earlier: Mapping[str, Stage], file: Path
) -> Stage:
    if stage.weights:
        path = Path(stage.weights)
        return Stage(name=stage.name, recipe="", overrides=(), settings=None, weights=path, inputs={})
    recipe = str(beside) if (beside := file.parent / stage.recipe).is_file() else stage.recipe
    place = folder / stage.name
    overrides = [f"folder={json.dumps(str(place))}", *shared, *_flatten(stage.set)]
    is_distillation = load_config(recipe, overrides).distill is not None
    inputs = {}
    for key, source in stage.sources.items():
        if source:
            target = _TARGETS.get(key, "distill.teacher_weights")
            if key == "start" and earlier[source].module == "trainer.distill":
                target = "model.image_weights"
            inputs[target] = source
    if stage.teacher_from:
        if not is_distillation:
            raise UserError(f"{file}: stage {stage.name} has a teacher_from, and its recipe no [distill]: remove it.")
        teacher = earlier[stage.teacher_from].settings
        overrides += [f"distill.teacher={json.dumps(teacher.model.sized_name)}"] if teacher else []
    known = Stage(
        name=stage.name,
        recipe=recipe,
        overrides=tuple(overrides),
        settings=None,
        weights=place / WEIGHTS,
        inputs=inputs,
    )
    paths = {name: one.weights for name, one in earlier.items()}
    settings = load_config(recipe, known.override_inputs(paths))
    return Stage(**{**vars(known), "settings": settings})


def _rename_from(stage: Any, file: str) -> Any:
    """`from` is a word of Python, so the dataclass has another name for it."""
    if isinstance(stage, dict) and "start" in stage:
        raise UserError(f"Unknown key 'start' in a stage of {file}: where a stage starts is its key from.")
    return {"start" if k == "from" else k: v for k, v in stage.items()} if isinstance(stage, dict) else stage


def _spell(key: str) -> str:
    return "from" if key == "start" else key


def _flatten(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Nested tables as overrides: {"train": {"seed": 1}} → train.seed=1."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{before}{key}.")
        else:
            yield f"{before}{key}={_as_toml(value)}"


def _as_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return json.dumps(value)
