"""Which pictures are shown plainly on a page: those that a score calls safe. All others are blurred."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_UNSAFE = 0.5
"""LAION's own threshold of punsafe."""
UNSAFE_SCORES = ("punsafe", "unsafe_score", "opennsfw_score")
SAFE_WORDS = ("UNLIKELY",)
"""What LAION-400M's `nsfw` says of safe pictures."""
SAFETY_COLUMNS = (*UNSAFE_SCORES, "nsfw")


def is_known_safe(row: Mapping[str, Any]) -> bool:
    """Whether something that is known of `row` calls its picture safe, and nothing calls it unsafe."""
    scores = [score for name in UNSAFE_SCORES if (score := row.get(name)) is not None and not math.isnan(score)]
    word = (row.get("nsfw") or "").strip().upper()
    says_safe = [score <= MAX_UNSAFE for score in scores] + ([word in SAFE_WORDS] if word else [])
    return bool(says_safe) and all(says_safe)
