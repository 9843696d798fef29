"""Filters of somebody's own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass

import pyarrow as pa

import filters


@dataclass(frozen=True, kw_only=True)
class CountCaptions(filters.Filter):
    """How many of two captions a row has."""

    reads = ("caption", "caption_2")
    writes = pa.schema([("num_captions", pa.int32())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        known = (batch[name].is_valid().to_numpy(zero_copy_only=False) for name in self.reads)
        return self.result(pa.array(sum(one.astype(int) for one in known)))


@dataclass(frozen=True, kw_only=True)
class EndProcess(filters.Filter):
    """Ends the process that scores, as the kernel does where memory is short."""

    reads = ("caption",)
    writes = pa.schema([("ends", pa.int32())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.result([0] * len(batch))
