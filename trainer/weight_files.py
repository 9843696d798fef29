"""Read the tensors of a checkpoint file or folder one at a time, whatever wrote it, without running code from it."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from curation.errors import UserError
from trainer import torchscript
from trainer.pickles import read_pickle

_ROOTS = ("model", "module", "state_dict")
_MAX_WRAPPERS = 8
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
        """Read one tensor to the CPU. Raises UserError when it is of a kind that no weight is."""
        tensor = self._readers[name]()
        if tensor.is_complex():
            raise UserError(f"{self.path} holds complex numbers as {name}, so it is no checkpoint of these models.")
        return tensor

    def _open_safetensors(self, part: Path) -> None:
        try:
            handle = safe_open(str(part), framework="pt")
            self.metadata |= handle.metadata() or {}
            for name in handle.keys():  # noqa: SIM118 - safe_open is no mapping
                self._shapes[name] = tuple(handle.get_slice(name).get_shape())
                self._readers[name] = _make_reader(handle.get_tensor, name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{part} is not a whole safetensors file ({error}); fetch it again.") from error

    def _open_pickle(self, part: Path) -> None:
        if torchscript.is_torchscript(part):
            for name, stored in torchscript.list_tensors(part).items():
                self._shapes[name] = stored.shape
                self._readers[name] = partial(torchscript.read_tensor, part, stored)
            return
        tensors = _unwrap(read_pickle(part))
        for name, tensor in tensors.items():
            if isinstance(name, str) and isinstance(tensor, Tensor):
                _require_whole(tensor, name, part)
                self._shapes[name] = tuple(tensor.shape)
                self._readers[name] = _make_reader(tensors.__getitem__, name)

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


def _unwrap(state: Any) -> dict[Any, Any]:
    """The dictionary of tensors inside whatever a training script saved around it."""
    inner: dict[Any, Any] = state if isinstance(state, dict) else {}
    for _ in range(_MAX_WRAPPERS):
        wrapped = next((inner[root] for root in _ROOTS if isinstance(inner.get(root), dict)), None)
        if wrapped is None:
            return inner
        inner = wrapped
    return {}


def _require_whole(tensor: Tensor, name: str, part: Path) -> None:
    """Refuse a tensor whose elements are not all in the file: it could be of any size."""
    is_plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized
    if not is_plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(
            f"{part} does not hold all elements of {name} one by one, so it is not loaded: save it densely."
        )


def _list_parts(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"There is no checkpoint at {path}.")
    if path.is_file():
        return [path]
    for index in _INDEXES:
        if (path / index).exists():
            return [_require_part(path / name) for name in _read_index(path / index)]
    for file in _SINGLE_FILES:
        if (path / file).exists():
            return [path / file]
    raise UserError(f"The folder {path} holds none of {', '.join(_INDEXES + _SINGLE_FILES)}; name the file itself.")


def _read_index(index: Path) -> list[str]:
    """The names of the files that an index lists, each in the folder of the index."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is no whole index of the files beside it; fetch it again.") from error
    elsewhere = next((name for name in names if not isinstance(name, str) or name != Path(name).name), None)
    if elsewhere is not None:
        raise UserError(f"{index} names {elsewhere}, which is no file beside it; fetch the checkpoint again.")
    return names


def _require_part(part: Path) -> Path:
    if not part.exists():
        raise UserError(f"{part} is named by the index beside it but is not there; fetch it again.")
    return part
