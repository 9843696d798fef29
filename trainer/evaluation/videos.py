"""Sets of videos: UCF-101's and Kinetics' files, a folder of classes, and webdataset tars.

FOLDER/UCF-101/CLASS/v_….avi, FOLDER/ucfTrainTestlist/testlist01.txt and classInd.txt      as UCF-101 comes
FOLDER/val.csv (or test.csv, validate.csv) with label, youtube_id, time_start and time_end   as Kinetics comes,
    its videos ID_START_END.mp4 in FOLDER/val, FOLDER/videos or FOLDER, or in a folder of the label in one of them
FOLDER/CLASS/VIDEO.mp4 or FOLDER/CLASS/VIDEO/0001.jpg …                                      a folder a class
FOLDER/test/0.tar … with KEY.mp4 or KEY.0.jpg, KEY.1.jpg …, and KEY.cls, and classnames.txt  webdataset
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from curation.errors import UserError
from trainer.evaluation import tars
from trainer.evaluation.encoder import PICTURE_SUFFIXES, FrameSource, Picture
from trainer.evaluation.frames import VIDEO_SUFFIXES, FrameSet, Pictures, VideoFile, import_av
from trainer.evaluation.lines import read_lines, read_names
from trainer.evaluation.sources import read_class_names, read_templates

NUM_CLASSES = {"UCF-101": 101, "K400": 400, "K600": 600, "K700": 700}
"""Sets of the paper's table of videos → how many classes they have."""
_LISTS, _VIDEOS = "ucfTrainTestlist", "UCF-101"
_CSV = ("val.csv", "validate.csv", "test.csv")
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
Labelled = list[tuple[FrameSource, str]]


def read_videos(name: str, folder: Path, templates: Sequence[str], counts: Sequence[int]) -> FrameSet:
    """The set `name` at `folder`, each video with the frames of all `counts`.

    Raises:
        UserError: when there is no such folder, a video or a frame is missing, PyAV is needed and not installed, or
            classes are not as many as their file or the published set has.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} of videos: name one.")
    wanted = tuple(counts)
    if tars.list_tars(folder):
        found = _read_tars(folder, wanted, templates)
    elif (lists := _find_lists(folder)) is not None:
        found = _read_ucf(folder, lists, wanted, templates)
    elif (file := next((folder / one for one in _CSV if (folder / one).is_file()), None)) is not None:
        found = _read_kinetics(folder, file, wanted, templates)
    else:
        found = _read_folders(folder, wanted, templates)
    published = NUM_CLASSES.get(name, len(found.names))
    if len(found.names) != published:
        raise UserError(f"{folder} has {len(found.names)} classes, and {name} has {published}: correct its class file.")
    if any(isinstance(item, VideoFile) for item in found.items):
        import_av(found.items[0].name)
    return found


def _find_lists(folder: Path) -> Path | None:
    return next((place for place in (folder / _LISTS, folder) if (place / "testlist01.txt").is_file()), None)


def _read_ucf(folder: Path, lists: Path, counts: tuple[int, ...], templates: Sequence[str]) -> FrameSet:
    """UCF-101's first test list."""
    videos = folder / _VIDEOS if (folder / _VIDEOS).is_dir() else folder
    index = lists / "classInd.txt"
    names = [line.split()[-1] for line in read_lines(index) if line] if index.is_file() else []
    there = sorted(path.name for path in videos.iterdir() if path.is_dir() and path.name != _LISTS)
    names = names or there
    if len(names) != len(there):
        raise UserError(f"{index} names {len(names)} classes, and {videos} has {len(there)} sub-folders of videos.")
    listed = [line.split()[0] for line in read_lines(lists / "testlist01.txt") if line]
    labelled: Labelled = [(VideoFile(str(videos / rel), videos / rel, counts), rel.partition("/")[0]) for rel in listed]
    _require_files([videos / rel for rel in listed], folder)
    words = tuple(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in names)
    return _join(folder, labelled, names, words, templates)


def _read_kinetics(folder: Path, file: Path, counts: tuple[int, ...], templates: Sequence[str]) -> FrameSet:
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or any(column not in rows[0] for column in _COLUMNS):
        raise UserError(f"{file} has no rows with {', '.join(_COLUMNS)}, so it is no list of Kinetics.")
    labelled: Labelled = []
    paths = []
    for number, row in enumerate(rows, start=2):
        try:
            stem = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
        except (TypeError, ValueError) as error:
            raise UserError(f"Line {number} of {file} has no time in seconds: fetch the list again.") from error
        path = _find_video(folder, file.stem, row["label"], stem)
        paths.append(path)
        labelled.append((VideoFile(str(path), path, counts), row["label"]))
    _require_files(paths, folder)
    names = sorted({label for _, label in labelled})
    return _join(folder, labelled, names, read_class_names(folder, names), templates)


def _find_video(folder: Path, split: str, label: str, stem: str) -> Path:
    """Where the video is, or where it should be."""
    places = [folder / place for place in (split, "videos", "")]
    folders = [path for place in places for path in (place, place / label, place / label.replace(" ", "_"))]
    paths = [place / (stem + suffix) for place in folders for suffix in (".mp4", *sorted(VIDEO_SUFFIXES))]
    return next((path for path in paths if path.is_file()), paths[0])


def _require_files(paths: Sequence[Path], folder: Path) -> None:
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise UserError(
            f"{len(absent)} of {len(paths)} videos of {folder} are not there, the first is {absent[0]}: fetch them, or "
            "remove their lines from the list."
        )


def _read_folders(folder: Path, counts: tuple[int, ...], templates: Sequence[str]) -> FrameSet:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise UserError(f"{folder} has {len(classes)} sub-folders: classification needs two classes of videos or more.")
    labelled: Labelled = []
    for name in classes:
        found = [item for path in sorted((folder / name).iterdir()) if (item := _read_item(path, counts)) is not None]
        if not found:
            raise UserError(f"{folder / name} has no videos: add some or remove the class.")
        labelled += [(item, name) for item in found]
    return _join(folder, labelled, classes, read_class_names(folder, classes), templates)


def _read_item(path: Path, counts: tuple[int, ...]) -> FrameSource | None:
    """A video by its file or by the folder of its frames."""
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return VideoFile(str(path), path, counts)
    if not path.is_dir():
        return None
    files = [file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES]
    return Pictures(str(path), order_frames(str(path), [Picture(str(file), file) for file in files]), counts)


def order_frames(name: str, pictures: Sequence[Picture]) -> tuple[Picture, ...]:
    """The frames of a video by the last number in their names.

    Raises:
        UserError: without a frame, for one without a number, or when the numbers leave one out.
    """
    numbered: dict[int, Picture] = {}
    for picture in pictures:
        digits = re.findall(r"\d+", Path(picture.name).stem)
        if not digits:
            raise UserError(f"{picture.name} has no number, so its place in the video is unknown: number the frames.")
        if numbered.setdefault(int(digits[-1]), picture) is not picture:
            raise UserError(f"{picture.name} and {numbered[int(digits[-1])].name} are one frame: remove one of them.")
    if not numbered:
        raise UserError(f"{name} has no frames: add them or remove the video.")
    numbers = sorted(numbered)
    step = min((b - a for a, b in zip(numbers, numbers[1:], strict=False)), default=1)
    missing = next((a + step for a, b in zip(numbers, numbers[1:], strict=False) if b - a != step), None)
    if missing is not None:
        raise UserError(f"{name} has no frame {missing}, between {numbers[0]} and {numbers[-1]}: add it.")
    return tuple(numbered[number] for number in numbers)


def _read_tars(folder: Path, counts: tuple[int, ...], templates: Sequence[str]) -> FrameSet:
    file = folder / tars.CLASS_NAMES
    if not file.is_file():
        raise UserError(f"{folder} has tars but no {tars.CLASS_NAMES}: it needs the name of a class a line.")
    names = read_names(file)
    items: list[FrameSource] = []
    labels = []
    for sample in tars.read_clips(folder, len(names), VIDEO_SUFFIXES):
        if sample.video is not None:
            items.append(VideoFile(sample.name, sample.video, counts))
        else:
            items.append(Pictures(sample.name, order_frames(sample.name, sample.frames), counts))
        labels.append(sample.label)
    own = read_templates(folder)
    return FrameSet(names, own or tuple(templates), tuple(items), tuple(labels), bool(own))


def _join(
    folder: Path, labelled: Labelled, classes: Sequence[str], words: Sequence[str], templates: Sequence[str]
) -> FrameSet:
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = next((name for _, name in labelled if name not in numbers), None)
    if unknown is not None:
        raise UserError(
            f"A video of {folder} is of class {unknown!r}, which its class file does not name: add it there."
        )
    if not labelled:
        raise UserError(f"{folder} lists no videos.")
    own = read_templates(folder)
    labels = tuple(numbers[name] for _, name in labelled)
    return FrameSet(tuple(words), own or tuple(templates), tuple(item for item, _ in labelled), labels, bool(own))
