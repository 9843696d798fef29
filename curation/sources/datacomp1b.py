"""DataComp-1B: the columns of CommonPool, which it is a part of (mlfoundations/datacomp)."""

from dataclasses import replace

from curation.sources import commonpool

FORMAT = replace(commonpool.FORMAT, is_detected=False)
