"""Pictures with several classes each, in PASCAL VOC's folders.

    FOLDER/[VOCdevkit/VOC2007/]JPEGImages/000001.jpg …
    FOLDER/[VOCdevkit/VOC2007/]ImageSets/Main/CLASS_test.txt      a line "000001 -1": -1 absent, 0 difficult, 1 present

A difficult object counts as present, as in CLIP_benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from curation.errors import UserError
from trainer.evaluation.encoder import Picture
from trainer.evaluation.lines import read_lines
from trainer.evaluation.sources import Classes, read_templates

_PLACES = (Path("VOCdevkit/VOC2007"), Path("VOC2007"), Path())
_END = "_test.txt"


def is_devkit(folder: Path) -> bool:
    """Whether PASCAL VOC's folders lie at `folder`."""
    return _find_devkit(folder) is not None


def _find_devkit(folder: Path) -> Path | None:
    return next((folder / place for place in _PLACES if (folder / place / "ImageSets" / "Main").is_dir()), None)


def read_devkit(folder: Path, templates: Sequence[str], named: Mapping[str, str]) -> Classes:
    """The test pictures of PASCAL VOC and the classes of each.

    Raises:
        UserError: for a list that is not whole, lists of other pictures than each other's, or a picture that is absent.
    """
    place = _find_devkit(folder)
    assert place is not None
    files = sorted((place / "ImageSets" / "Main").glob(f"*{_END}"))
    if not files:
        raise UserError(f"{place}/ImageSets/Main has no CLASS{_END}: fetch the lists of the test pictures.")
    columns = [_read_list(file) for file in files]
    numbers = list(columns[0])
    for file, column in zip(files, columns, strict=True):
        if list(column) != numbers:
            raise UserError(f"{file} lists other pictures than {files[0].name}: fetch the lists again.")
    paths = [place / "JPEGImages" / f"{number}.jpg" for number in numbers]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise UserError(f"{len(absent)} of {len(paths)} pictures of {folder} are not there, the first is {absent[0]}.")
    classes = [file.name.removesuffix(_END) for file in files]
    own = read_templates(folder)
    return Classes(
        names=tuple(named.get(name, name) for name in classes),
        templates=own or tuple(templates),
        pictures=tuple(Picture(str(path), path) for path in paths),
        labels=(),
        label_sets=tuple(
            frozenset(number for number, column in enumerate(columns) if column[picture]) for picture in numbers
        ),
        own_prompts=bool(own),
    )


def _read_list(file: Path) -> dict[str, bool]:
    """Picture → whether the class is present."""
    found = {}
    for number, line in enumerate(read_lines(file), start=1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("-1", "0", "1"):
            raise UserError(f"Line {number} of {file} is no picture and -1, 0 or 1.")
        found[words[0]] = words[1] != "-1"
    return found
