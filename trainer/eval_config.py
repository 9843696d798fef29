"""The section [eval] of a configuration. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trainer.values import require


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is measured after training, while it runs, and by `trainer.evaluate`."""

    every_samples: int = 0
    """Measure after so many samples, at the end of each phase, and after a SIGTERM's checkpoint; 0 only at the end."""

    retrieval: bool = False
    """Image↔text recall on samples of [data]: without `where`, on the training pairs themselves."""
    where: str | None = None
    max_samples: int = 5_000
    batch_size: int = 64
    """Per rank."""
    paper_sets: str = ""
    """A folder that holds sets of the paper's table of 27, by their names: all that are there, or `paper_names`."""
    paper_names: tuple[str, ...] = ()
    image_folders: dict[str, str] = field(default_factory=dict)
    """Name → folder with one sub-folder of pictures a class, or of a benchmark's tars, to classify zero-shot."""
    videos: dict[str, str] = field(default_factory=dict)
    """Name → folder of videos, to classify zero-shot by the mean of `frames` frames, for each number of them."""
    frames: tuple[int, ...] = (1, 8, 16)
    points: dict[str, str] = field(default_factory=dict)
    """Name → folder of point clouds or meshes, to classify zero-shot by the mean of `views` rendered views."""
    views: int = 10
    captions: dict[str, str] = field(default_factory=dict)
    """Name → file of lines "picture<tab>caption", or a folder of tars, to retrieve with any number of captions a
    picture."""
    probes: dict[str, str] = field(default_factory=dict)
    """Name → folder whose train/ and test/ are each as of image_folders: linear probe and nearest neighbours."""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    resize: tuple[Literal["crop", "squash"], ...] = ("crop", "squash")
    """Each is reported by itself: they differ by up to 6 points (arXiv 2402.04252, appendix)."""

    def __post_init__(self) -> None:
        require(self.every_samples >= 0, f"every_samples must not be negative, not {self.every_samples}")
        require(self.max_samples > 0 and self.batch_size > 0, "max_samples and batch_size must be positive")
        require(bool(self.templates) and all("{}" in t for t in self.templates), "every template needs a {}")
        require(bool(self.resize), "resize names no way")
        require(bool(self.frames) and min(self.frames) > 0, f"frames are numbers above 0, not {self.frames}")
        require(self.views > 0, f"views must be positive, not {self.views}")
        require(len(set(self.frames)) == len(self.frames), f"frames has a number twice: {self.frames}")
        require(bool(self.paper_sets) or not self.paper_names, "paper_names chooses among paper_sets: name its folder")

    @property
    def names_any(self) -> bool:
        """Whether there is anything to measure."""
        sets = (self.paper_sets, self.image_folders, self.videos, self.points, self.captions, self.probes)
        return self.retrieval or any(map(bool, sets))
