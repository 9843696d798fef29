"""Opt-out lists: what must not be fetched or kept, by URL, by host, or by sha256 of the picture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import fsspec

from curation.errors import UserError

SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class OptOut:
    """Entries of all lists. A host stands for itself and every host below it."""

    urls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    sha256s: frozenset[str] = frozenset()

    def refuses_url(self, url: str) -> bool:
        if url in self.urls:
            return True
        if not self.hosts:
            return False
        try:
            host = (urlsplit(url).hostname or "").rstrip(".")
        except ValueError:
            return False
        labels = host.split(".")
        return any(".".join(labels[i:]) in self.hosts for i in range(len(labels)))


def load(paths: Iterable[str]) -> OptOut:
    """Read lists with one entry a line; `#` starts a comment line. Raises UserError when one cannot be read."""
    urls, hosts, sha256s = set(), set(), set()
    for path in paths:
        try:
            with fsspec.open(path, "rt", encoding="utf-8") as f:
                entries = [line.strip() for line in f]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The opt-out list {path} cannot be read: {error}.") from error
        for entry in entries:
            if not entry or entry.startswith("#"):
                continue
            if "://" in entry:
                urls.add(entry)
            elif SHA256.fullmatch(entry):
                sha256s.add(entry.lower())
            else:
                hosts.add(entry.lower().rstrip("."))
    return OptOut(frozenset(urls), frozenset(hosts), frozenset(sha256s))
