"""The rows of one unit that have to end in this round, and the one way in which a row ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from curation.download import rounds
from curation.download.journal import Journal
from curation.download.log import UnitLog
from curation.download.opt_out import OptOut
from curation.download.rows import failed_row
from curation.recipe.config import DownloadConfig
from curation.schema import DownloadRow, SampleRow, Status


@dataclass(frozen=True)
class UnitRows:
    """The samples of one unit whose rows have to end, and what an engine needs to end them."""

    samples: list[SampleRow]
    journal: Journal
    config: DownloadConfig
    opt_out: OptOut
    log: UnitLog
    earlier: Mapping[str, DownloadRow] = field(default_factory=dict)
    """The rows of these samples after the last round, by uid; empty in the first."""

    def __post_init__(self) -> None:
        """Count the rows that the journal brought back, and refuse those that an opt-out list names by now."""
        for sample in self.samples:
            row = self.journal.rows.get(sample["uid"])
            if row is None:
                continue
            refusal = self.refusal(sample, row["sha256"])
            if refusal is None:
                self.log.count_row(sample["domain"], row)
            else:
                self.end(sample, failed_row(sample["uid"], Status.OPTED_OUT, refusal))

    def refusal(self, sample: SampleRow, sha256: str | None = None) -> str | None:
        """Why `sample` may not be fetched, or its picture with this `sha256` not be kept; None when it may."""
        if self.opt_out.refuses_url(sample["url"]):
            return "on an opt-out list"
        return self.opt_out.explain_sha256(sample["claimed_sha256"]) or self.opt_out.explain_sha256(sha256)

    def waiting_samples(self) -> list[SampleRow]:
        """Samples whose rows the journal does not hold yet."""
        return [sample for sample in self.samples if sample["uid"] not in self.journal.rows]

    def allowed_samples(self) -> list[SampleRow]:
        """Waiting samples that may be fetched; the rows of the others end here as opted out."""
        allowed = []
        for sample in self.waiting_samples():
            refusal = self.refusal(sample)
            if refusal is None:
                allowed.append(sample)
            else:
                self.end(sample, failed_row(sample["uid"], Status.OPTED_OUT, refusal))
        return allowed

    def end(self, sample: SampleRow, row: DownloadRow, data: bytes = b"") -> None:
        """End the row of `sample`: write it into the journal with the stored picture, and count it."""
        row = rounds.mark_repeated(row, self.earlier.get(sample["uid"]))
        self.journal.add(row, data)
        self.log.count_row(sample["domain"], row)


Engine = Callable[[UnitRows], None]
"""Ends every waiting row of a unit."""
