"""Import open_clip and timm, the oracles of these tests, on a torch without torchvision's compiled operators.

`import torchvision` registers shapes for operators that only its compiled part defines; where a CPU build of torch
meets a CUDA build of torchvision they are missing, so they are defined here, without a kernel, and never called.
"""

import importlib
import importlib.util
from types import ModuleType

import pytest
import torch

_LIBRARIES: list[torch.library.Library] = []


def oracle(name: str) -> ModuleType:
    """The module `name`, or a skip that says why the comparison cannot run."""
    for package in ("torchvision", name.partition(".")[0]):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: the comparison with {name} needs the `test` extra")
    _define_operators()
    return importlib.import_module(name)


def _define_operators() -> None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
