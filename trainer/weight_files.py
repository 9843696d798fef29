"""Read the tensors of a checkpoint file or folder one at a time, whatever wrote it, without running code from it."""

import argparse
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from curation.errors import UserError

_ROOTS = ("model", "module", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE_FILES = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin")


class WeightFile:
    """Named tensors with shapes known before any is read; `metadata` is what a safetensors header says."""

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            UserError: when it does not exist or holds no tensors that can be read safely.
        """
        self.path = path
        self.metadata: dict[str, str] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._readers: dict[str, Callable[[], Tensor]] = {}
        for part in _list_parts(path):
            self._open_safetensors(part) if part.suffix == ".safetensors" else self._open_pickle(part)
        if not self._shapes:
            raise UserError(f"{path} holds no tensors, so it is no model checkpoint.")
        self._rename_tensors()

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor by name."""
        return self._shapes

    def tensor(self, name: str) -> Tensor:
        """Read one tensor to the CPU."""
        return self._readers[name]()

    def _open_safetensors(self, part: Path) -> None:
        try:
            handle = safe_open(str(part), framework="pt")
        except SafetensorError as error:
            raise UserError(f"{part} is not a whole safetensors file ({error}); fetch it again.") from error
        self.metadata |= handle.metadata() or {}
        for name in handle.keys():  # noqa: SIM118 - safe_open is no mapping
            self._shapes[name] = tuple(handle.get_slice(name).get_shape())
            self._readers[name] = _make_reader(handle.get_tensor, name)

    def _open_pickle(self, part: Path) -> None:
        try:
            # Training scripts leave their arguments beside the weights; a Namespace is data only.
            with torch.serialization.safe_globals([argparse.Namespace]):
                state = torch.load(part, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(part))
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{part} is not a checkpoint of plain tensors, so it is not loaded ({reason}).") from error
        for name, tensor in _unwrap(state).items():
            if isinstance(tensor, Tensor):
                self._shapes[name] = tuple(tensor.shape)
                self._readers[name] = _make_reader(_unwrap(state).__getitem__, name)

    def _rename_tensors(self) -> None:
        """Drop wrappers' prefixes, and give a CLIP that keeps its text tower at the root the prefix of the others."""
        renames = {name: _strip_prefixes(name) for name in self._shapes}
        bare_text = "positional_embedding" in renames.values()
        for old, name in renames.items():
            if bare_text and not name.startswith("visual.") and name not in ("logit_scale", "logit_bias"):
                name = f"text.{name}"
            name = "logit_scale" if name == "text.logit_scale" else name
            self._shapes[name] = self._shapes.pop(old)
            self._readers[name] = self._readers.pop(old)


def _make_reader(read: Callable[[str], Tensor], name: str) -> Callable[[], Tensor]:
    return lambda: read(name)


def _strip_prefixes(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _unwrap(state: Any) -> dict[str, Any]:
    """The dictionary of tensors inside whatever a training script saved around it."""
    while isinstance(state, dict):
        inner = next((state[root] for root in _ROOTS if isinstance(state.get(root), dict)), None)
        if inner is None:
            return state
        state = inner
    return {}


def _list_parts(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"There is no checkpoint at {path}.")
    if path.is_file():
        return [path]
    for index in _INDEXES:
        if (path / index).exists():
            files = json.loads((path / index).read_text())["weight_map"].values()
            return [_require_part(path / file) for file in sorted(set(files))]
    for file in _SINGLE_FILES:
        if (path / file).exists():
            return [path / file]
    raise UserError(f"The folder {path} holds none of {', '.join(_INDEXES + _SINGLE_FILES)}; name the file itself.")


def _require_part(part: Path) -> Path:
    if not part.exists():
        raise UserError(f"{part} is named by the index beside it but is not there; fetch it again.")
    return part
