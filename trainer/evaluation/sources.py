"""What is measured on: folders of classes, files of captions, webdataset tars of both, and pairs of a curated root."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.errors import UserError
from trainer.config import Config
from trainer.data import Loader
from trainer.evaluation import tars
from trainer.evaluation.encoder import PICTURE_SUFFIXES, Picture
from trainer.evaluation.lines import read_lines, read_names
from trainer.launch import Rank

CLASS_NAMES, TEMPLATES = "classes.tsv", "templates.txt"
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Classes:
    """A set to classify: the classes' names in prompts, the templates, every picture and its class.

    Where a picture may have several classes `labels` is empty and `label_sets` has them. `own_prompts` is whether the
    templates are the set's own.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]
    pictures: tuple[Picture, ...]
    labels: tuple[int, ...]
    label_sets: tuple[frozenset[int], ...] = ()
    own_prompts: bool = False

    @property
    def prompts(self) -> list[list[str]]:
        """Per class, its name in every template."""
        return [[template.replace("{}", name) for template in self.templates] for name in self.names]


@dataclass(frozen=True)
class Captions:
    """A set to retrieve in: pictures, captions, and the picture that each caption belongs to."""

    pictures: tuple[Picture, ...]
    texts: tuple[str, ...]
    image_of: tuple[int, ...]


def read_classes(folder: Path, templates: Sequence[str], named: Mapping[str, str] | None = None) -> Classes:
    """A folder with one sub-folder of pictures a class, or a benchmark's tars (`trainer.evaluation.tars`).

    Beside the sub-folders may lie classes.tsv (sub-folder, tab, name in prompts) and templates.txt (one template with
    {} a line), which replace the sub-folders' own names and `templates`.

    Args:
        folder: where it lies.
        templates: used where the set has none.
        named: name of a class → its name in prompts, in the order of their numbers, used where the set's files name
            none: its sub-folders are called so, or are numbers.

    Raises:
        UserError: when there is no such folder, fewer than two classes, or one without a name or a picture.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} to classify: name one with a sub-folder of pictures a class.")
    if tars.list_tars(folder):
        return _read_class_tars(folder, templates, named or {})
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise UserError(f"{folder} has {len(classes)} sub-folders: zero-shot classification needs two classes or more.")
    names = read_class_names(folder, [path.name for path in classes], named or {})
    pictures, labels = [], []
    for label, path in enumerate(classes):
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file())
        if not found:
            raise UserError(f"{path} has no pictures: add some or remove the class.")
        pictures += [Picture(str(file), file) for file in found]
        labels += [label] * len(found)
    own = read_templates(folder)
    return Classes(names, own or tuple(templates), tuple(pictures), tuple(labels), own_prompts=bool(own))


def read_probe(folder: Path) -> tuple[Classes, Classes]:
    """The pictures to learn from, in `folder`/train, and those to test on, in `folder`/test, with the same classes.

    Raises:
        UserError: as `read_classes`, and when the two have other classes.
    """
    train, test = (read_classes(folder / part, ("{}",)) for part in ("train", "test"))
    if train.names != test.names:
        one = next(iter(set(train.names) ^ set(test.names)), f"another order, {train.names[0]} first")
        raise UserError(f"{folder}: train and test have other classes ({one}): give both the same sub-folders.")
    return train, test


def _read_class_tars(folder: Path, templates: Sequence[str], named: Mapping[str, str]) -> Classes:
    names = _read_tar_names(folder, named)
    labels: tuple[int, ...] = ()
    label_sets: tuple[frozenset[int], ...] = ()
    if tars.has_label_sets(folder):
        pictures, label_sets = zip(*tars.read_label_sets(folder, len(names)), strict=True)
    else:
        pictures, labels = zip(*tars.read_labels(folder, len(names)), strict=True)
    own = read_templates(folder)
    return Classes(names, own or tuple(templates), pictures, labels, label_sets, own_prompts=bool(own))


def _read_tar_names(folder: Path, named: Mapping[str, str]) -> tuple[str, ...]:
    file = folder / tars.CLASS_NAMES
    if file.is_file():
        return read_names(file)
    if named:
        return tuple(named.values())
    raise UserError(f"{folder} has tars but no {tars.CLASS_NAMES}: it needs the name of a class a line.")


def read_class_names(folder: Path, classes: Sequence[str], named: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Names in prompts of classes that are called so on the disk, `named` as in `read_classes`. Raises UserError."""
    file = folder / CLASS_NAMES
    named = named or {}
    if not file.exists():
        ours = dict(named) | dict(zip(map(str, range(len(named))), named.values(), strict=True))
        if named and len(classes) == len(named) and all(name in ours for name in classes):
            return tuple(ours[name] for name in classes)
        if all(_WORDNET.fullmatch(name) for name in classes):
            raise UserError(
                f"The classes of {folder} are WordNet numbers, which no prompt can name: "
                f"write {CLASS_NAMES} beside them, a line 'sub-folder<tab>name' each."
            )
        return tuple(name.replace("_", " ") for name in classes)
    words_of: dict[str, str] = {}
    for name, words in _read_columns(file):
        if words_of.setdefault(name, words) != words:
            raise UserError(f"{file} names {name} twice, {words_of[name]!r} and {words!r}: leave one of them.")
    missing = [name for name in classes if name not in words_of]
    if missing:
        raise UserError(f"{file} names no {missing[0]}: it needs a line 'sub-folder<tab>name' for every class.")
    return tuple(words_of[name] for name in classes)


def read_templates(folder: Path) -> tuple[str, ...]:
    """The set's own templates, none when it has no such file. Raises UserError."""
    file = next((folder / name for name in (TEMPLATES, tars.TEMPLATES) if (folder / name).exists()), None)
    if file is None:
        return ()
    found = tuple(line.replace("{c}", "{}") for line in read_lines(file) if line)
    if not found:
        raise UserError(f"{file} is empty: remove it or write a template with {{}} a line.")
    wrong = next((line for line in found if "{}" not in line), None)
    if wrong is not None:
        raise UserError(f"{file} has no {{}} in {wrong!r}: every template needs one for the class.")
    return found


def read_captions(file: Path) -> Captions:
    """A tab-separated file: picture, relative to it or absolute, and caption; a picture has as many lines as captions.

    A folder is read as a benchmark's tars (`trainer.evaluation.tars`).

    Raises:
        UserError: when a line has not two columns or names a picture that is not there.
    """
    if file.is_dir() and tars.list_tars(file):
        return _read_caption_tars(file)
    if not file.is_file():
        raise UserError(f"There is no file {file}: name one with lines 'picture<tab>caption'.")
    numbers: dict[str, int] = {}
    texts, image_of = [], []
    for name, caption in _read_columns(file):
        image_of.append(numbers.setdefault(name, len(numbers)))
        texts.append(caption)
    if not texts:
        raise UserError(f"{file} has no captions.")
    paths = [file.parent / name for name in numbers]
    absent = next((path for path in paths if not path.is_file()), None)
    if absent is not None:
        raise UserError(f"{file} names {absent}, which is not there.")
    return Captions(tuple(Picture(str(path), path) for path in paths), tuple(texts), tuple(image_of))


def _read_caption_tars(folder: Path) -> Captions:
    if not tars.is_retrieval(folder):
        raise UserError(f"{folder} is no retrieval set, its dataset_type.txt does not say so: classify it instead.")
    pictures, texts, image_of = [], [], []
    for number, (picture, captions) in enumerate(tars.read_captions(folder)):
        pictures.append(picture)
        texts += captions
        image_of += [number] * len(captions)
    return Captions(tuple(pictures), tuple(texts), tuple(image_of))


def _read_columns(file: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in enumerate(read_lines(file), start=1):
        if not line:
            continue
        first, tab, second = line.partition("\t")
        if not (tab and first.strip() and second.strip()):
            raise UserError(f"Line {number} of {file} is not two columns parted by a tab.")
        rows.append((first.strip(), second.strip()))
    return rows


def read_pairs(settings: Config, rank: Rank) -> tuple[list[Picture], list[str]]:
    """This rank's part of at most eval.max_samples pairs of [data], drawn at random but always the same.

    Raises:
        UserError: when eval.where (data.where by default) finds nothing.
    """
    where = settings.data.where if settings.eval.where is None else settings.eval.where
    loader = Loader(
        settings.data.root,
        where=where,
        batch_size=settings.eval.batch_size,
        transform=None,
        tokenizer=None,
        rank=rank.rank,
        world_size=rank.world_size,
        num_workers=settings.data.num_workers,
    )
    loader.epoch_samples = min(settings.eval.max_samples, len(loader.index))
    pictures: list[Picture] = []
    captions: list[str] = []
    for batch in loader:
        real = len(batch["uid"]) - batch["padding"]
        pictures += [Picture(f"sample {u}", p) for u, p in zip(batch["uid"][:real], batch["pixels"], strict=False)]
        captions += batch["tokens"][:real]
    return pictures, captions
