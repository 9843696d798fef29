"""Read what `torch.save` wrote without running code from it.

A pickle names what it calls. PyTorch's restricted reader calls nothing but its own functions that make tensors. Numbers
of NumPy, dates, paths and arguments, which training scripts leave beside the weights, are not made: stand-ins that hold
nothing take their places. Whatever else a file names is refused by its name.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from curation.errors import UserError

_NUMPY = ("multiarray.scalar", "multiarray._reconstruct")
_NUMBERS = (
    "bool_",
    "float16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
HARMLESS = frozenset(
    [
        "argparse.Namespace",
        "types.SimpleNamespace",
        "uuid.UUID",
        "decimal.Decimal",
        "numpy.dtype",
        "numpy.ndarray",
        *(f"{module}.{name}" for module in ("numpy.core", "numpy._core") for name in _NUMPY),
        *(f"numpy.{name}" for name in _NUMBERS),
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    ]
)
"""What may stand beside tensors: none of it is made, a `StandIn` takes its place."""
_NAMED = re.compile(r"GLOBAL (\S+)")
_FILLER = b"bytearray\n"
"""The one name PyTorch accepts by which a short file can ask for any amount of memory."""


class StandIn:
    """Takes the place of an object that is not needed, and forgets what the file says about it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> StandIn:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def read_pickle(file: Path, others: Mapping[str, type] | None = None, *, is_mapped: bool = True) -> Any:
    """What `torch.save` wrote into `file`, on the CPU.

    Args:
        others: further names that the file may hold, and the class that is made for each.
        is_mapped: whether tensors of a zip file stay in it until something reads them.

    Raises:
        UserError: when the file is damaged, or holds an object that is on no list; it is named and not made.
    """
    listed = [*((StandIn, name) for name in sorted(HARMLESS)), *((cls, name) for name, cls in (others or {}).items())]
    try:
        is_zip = is_zip_file(file)
        _require_plain(file, is_zip)
        with torch.serialization.safe_globals(listed):  # type: ignore[arg-type]  # pairs of class and name, as documented
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip and is_mapped)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # what a damaged or hostile pickle raises has no list: any operation may meet any operand
        raise _explain(file, error) from error


def is_zip_file(file: Path) -> bool:
    """Whether `file` is a zip, which `torch.save` and TorchScript write."""
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # raised for a damaged directory of members
        return False


def _require_plain(file: Path, is_zip: bool) -> None:
    """Refuse what could take more memory than the file has bytes."""
    if is_zip:
        with zipfile.ZipFile(file) as archive:
            packed = next((info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED), None)
            if packed is not None:
                raise UserError(
                    f"{file} holds {packed.filename} compressed, as torch.save never does: unpack it first."
                )
            pickles = [info for info in archive.infolist() if info.filename.endswith(".pkl")]
            has_filler = any(_FILLER in archive.read(info) for info in pickles)
    else:
        with file.open("rb") as f, contextlib.closing(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)) as data:
            has_filler = data.find(_FILLER) >= 0
    if has_filler:
        raise _refuse(file, "builtins.bytearray")


def _explain(file: Path, error: Exception) -> UserError:
    named = _NAMED.search(str(error))
    if named:
        return _refuse(file, named[1])
    reason = next(itertools.chain(str(error).strip().splitlines(), [type(error).__name__]))
    return UserError(f"{file} is not a checkpoint of plain tensors, so it is not loaded ({reason}).")


def _refuse(file: Path, name: str) -> UserError:
    return UserError(
        f"{file} holds the object {name}, which is on no list of what is safe to read, so it is not loaded: where you "
        "trust the file, load it with torch and save its tensors alone."
    )
