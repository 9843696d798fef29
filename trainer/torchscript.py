"""The tensors of a TorchScript archive, such as OpenAI's CLIP, under the names that a `state_dict` gives them.

`torch.jit.load` compiles and runs what the archive says. Here its code is not looked at: data.pkl, which lists the
modules with their attributes, is unpickled with functions of this file alone, and tensors are read from their members.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curation.errors import UserError
from trainer.pickles import is_zip_file

_CODE = "/constants.pkl"
_MODULES = "/data.pkl"
_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}  # fmt: skip
MAX_OBJECTS = 1_000_000
"""The most attributes that are looked through; the models have some thousands."""


class StoredTensor(NamedTuple):
    """A tensor in the archive: the member that holds its elements, and which of them in what order."""

    member: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class _Module:
    """A module of the archive; what class it is does not matter."""

    attributes: dict[str, Any] = field(default_factory=dict)


def is_torchscript(file: Path) -> bool:
    """Whether `file` is such an archive."""
    if not is_zip_file(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith(_CODE) for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def list_tensors(file: Path) -> dict[str, StoredTensor]:
    """Every tensor that is an attribute of a module, by the names of the modules around it.

    Raises:
        UserError: when the archive is damaged or holds another object, which is named.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            member = next(name for name in archive.namelist() if name.endswith(_MODULES))
            modules = _Unpickler(BytesIO(_read_member(archive, member)), member.removesuffix(_MODULES)).load()
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        tensors = dict(_walk(modules))
        _require_stored(tensors, sizes)
        return tensors
    except Exception as error:  # as in trainer.pickles: what damaged bytes raise has no list
        raise UserError(
            f"{file} is no TorchScript archive whose tensors can be read safely ({_say(error)})."
        ) from error


def read_tensor(file: Path, stored: StoredTensor) -> Tensor:
    """One tensor. Raises UserError when the archive is damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            elements = torch.frombuffer(bytearray(_read_member(archive, stored.member)), dtype=stored.dtype)
        return elements.as_strided(stored.shape, stored.stride, stored.offset).clone()
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} is damaged: {stored.member} cannot be read ({_say(error)}).") from error


def _say(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _walk(root: Any) -> Iterator[tuple[str, StoredTensor]]:
    waiting = [("", root)]
    for _ in range(MAX_OBJECTS):
        if not waiting:
            return
        prefix, module = waiting.pop()
        for name, value in module.attributes.items() if isinstance(module, _Module) else ():
            if isinstance(value, StoredTensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
    raise ValueError(f"more than {MAX_OBJECTS:,} modules")


def _require_stored(tensors: dict[str, StoredTensor], sizes: dict[str, int]) -> None:
    for name, stored in tensors.items():
        if torch.Size(stored.shape).numel() * stored.dtype.itemsize > sizes.get(stored.member, -1):
            raise ValueError(f"{name} is larger than what is stored of it")


def _rebuild_tensor(storage: tuple[str, torch.dtype], offset: int, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    return StoredTensor(*storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _first(value: Any, *_: Any) -> Any:
    return value


def _nothing(*_: Any) -> None:
    return None


_FUNCTIONS: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "collections.OrderedDict": _nothing,
    "torch.jit._pickle.restore_type_tag": _first,
    **{f"torch.jit._pickle.build_{kind}list": _first for kind in ("int", "double", "bool", "tensor")},
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
}


def _build(reader: Any) -> None:
    """Give the module on the stack its attributes; nothing else can be changed by a file."""
    attributes = reader.stack.pop()
    module = reader.stack[-1]
    if not isinstance(module, _Module) or not isinstance(attributes, dict):
        raise pickle.UnpicklingError("attributes of what is no module")
    module.attributes = {str(name): value for name, value in attributes.items()}


# The reader written in C reserves as many places for what it remembers as the file asks for.
class _Unpickler(pickle._Unpickler):
    """Makes modules, tensors that are not read yet, and plain values; refuses every other name."""

    stack: list[Any]
    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _build}

    def __init__(self, data: BytesIO, folder: str) -> None:
        super().__init__(data, encoding="utf-8")
        self.folder = folder

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if f"{module}.{name}" not in _FUNCTIONS:
            raise pickle.UnpicklingError(f"it holds the object {module}.{name}")
        return _FUNCTIONS[f"{module}.{name}"]

    def persistent_load(self, pid: Sequence[Any]) -> Any:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        return f"{self.folder}/data/{key}", dtype
