"""The sections of the recipe that a selection reads besides its rules: blocklists, and the mix and limits of select."""

from __future__ import annotations

import math
from dataclasses import dataclass

from curation.settings import check_ranges, required_setting, setting


@dataclass(frozen=True, kw_only=True)
class BlocklistConfig:
    """Lists of what must not be kept: URLs, hosts, sha256, md5 and perceptual hashes, one a line."""

    paths: tuple[str, ...] = required_setting(content=True)
    max_hamming: int = setting(0, content=True, between=(0, 12))
    """Bits in which a perceptual hash may differ from a listed one."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.paths:
            raise ValueError("a blocklist names no paths")


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """How many rows of each source are kept of those that all rules let pass, drawn by uid."""

    weights: dict[str, float] = required_setting(content=True)
    """Source → its part of what is kept, in any unit; every source of the root has one."""
    rows: int | None = setting(None, content=True, between=(1, math.inf))
    """Rows at most; None means as many as there are in this ratio."""
    seed: int = setting(0, content=True, between=(0, 2**31 - 1))

    def __post_init__(self) -> None:
        check_ranges(self)
        if not all(0 <= w < math.inf for w in self.weights.values()) or not any(self.weights.values()):
            raise ValueError(f"weights must be 0 or more, and one of them more than 0, not {self.weights}")


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """The mix, and what DuckDB may take where `curate select` and `--what-if` run on one machine."""

    mix: MixConfig | None = setting(None, content=True)

    memory_gb: float = setting(1.5, content=False, between=(0.1, 65_536.0))
    """Rows, sorts and joins beyond it go to disk: to ROOT/.scratch, or for a question to the private folder."""
    threads: int | None = setting(None, content=False, between=(1, 4_096))
    """None means one for each core that this process may use."""

    def __post_init__(self) -> None:
        check_ranges(self)
