"""Hashes of the benchmark's pictures by other packages, in a virtualenv of their own.

    python -m venv /tmp/peer-venv && /tmp/peer-venv/bin/pip install pdqhash PyWavelets scikit-learn matplotlib
    /tmp/peer-venv/bin/pip install --no-deps imagededup        # its torchvision fails beside a CPU torch
    /tmp/peer-venv/bin/python benchmarks/peer_hashes.py /tmp/bench-dedupe/photographs

Needs torch importable there (a .pth to another environment will do). Writes peer-hashes.npz: uint64 `[n, words]` each.
"""

from __future__ import annotations

import importlib.abc
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pdqhash
from PIL import Image


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for torchvision, which imagededup imports for its networks and its hashes never use."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__getattr__ = lambda name: MagicMock()  # type: ignore[method-assign]  # PEP 562: a module may have one
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def main() -> None:
    folder = Path(sys.argv[1])
    sys.meta_path.insert(0, _Torchvision())
    from imagededup.methods import AHash, DHash, PHash

    files = sorted((folder / "files").glob("*.jpg"))
    methods = {"imagededup " + m.__name__: m(verbose=False) for m in (PHash, DHash, AHash)}
    hashes: dict[str, list[list[int]]] = {name: [] for name in (*methods, "PDQ")}
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        for name, method in methods.items():
            hashes[name].append([int(method.encode_image(image_array=pixels), 16)])
        bits = np.asarray(pdqhash.compute(pixels)[0], bool)
        hashes["PDQ"].append(np.packbits(bits).view(np.uint64).tolist())
    arrays: dict[str, Any] = {name: np.array(values, np.uint64) for name, values in hashes.items()}
    np.savez(folder / "peer-hashes.npz", **arrays)


if __name__ == "__main__":
    main()
