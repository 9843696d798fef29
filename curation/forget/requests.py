"""What is asked to be forgotten: uids, URLs, hosts and sha256 of pictures, from the command line and from lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.download.opt_out import COMMENT, SHA256, digest_key, parse_entry, parse_host, sha256_key
from curation.download.tombstones import UID, list_url_keys, uid_key
from curation.errors import UserError
from curation.fetch.urls import BadUrlError

UID_DIGITS = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The requests by their keys (curation/download/tombstones.py). `labels` has what each one was called by."""

    labels: Mapping[str, str]

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of keys that are asked for."""
        return frozenset(key.partition(" ")[0] for key in self.labels)

    def find_keys(self, uid: str, url: str | None, *sums: str | None) -> list[str]:
        """The keys among these that name the row with this uid, this URL and pictures with these sha256."""
        keys = [uid_key(uid), *(sha256_key(sha256) for sha256 in sums if sha256)]
        if not self.kinds <= {UID, "sha256"}:
            keys += list_url_keys(url)
        return [key for key in keys if key in self.labels]

    def list_tombstones(self) -> list[tuple[str, str]]:
        """Kind and sha256 (hex) of each key."""
        return sorted((key.partition(" ")[0], digest_key(key).hex()) for key in self.labels)


def parse_requests(
    *,
    uids: Sequence[str] = (),
    urls: Sequence[str] = (),
    hosts: Sequence[str] = (),
    sums: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> Requests:
    """The requests of one command. Raises UserError, naming the first one that is no such thing, or for none at all."""
    labels: dict[str, str] = {}
    for uid in uids:
        labels[uid_key(_check(uid, UID_DIGITS, "--uid", "32 hexadecimal digits"))] = uid
    for sha256 in sums:
        labels[sha256_key(_check(sha256, SHA256, "--sha256", "64 hexadecimal digits"))] = sha256
    for url in urls:
        labels[_parse_url(url)] = url
    for host in hosts:
        labels[_parse_host(host)] = host
    for path in lists:
        labels |= dict(_read_list(Path(path)))
    if not labels:
        raise UserError("Nothing is named to be forgotten: give --uid, --url, --host, --sha256 or --list FILE.")
    return Requests(labels=labels)


def _check(text: str, form: re.Pattern[str], option: str, wanted: str) -> str:
    if not form.fullmatch(text):
        raise UserError(f"{option} {text[:100]!r} is not {wanted}.")
    return text.lower()


def _parse_url(url: str) -> str:
    keys = list_url_keys(url)
    if not keys or "://" not in url:
        raise UserError(
            f"--url {url[:100]!r} is no URL: give it as the table samples has it, with http:// or https://."
        )
    return keys[0]


def _parse_host(host: str) -> str:
    try:
        if "://" in host or "/" in host:
            raise ValueError("a URL, so use --url")
        return parse_host(host)
    except (BadUrlError, ValueError) as error:
        reason = error.detail if isinstance(error, BadUrlError) else error
        raise UserError(f"--host {host[:100]!r} is no host ({reason}).") from error


def _read_list(path: Path) -> Iterator[tuple[str, str]]:
    """Key and text of each entry: those of opt-out lists, and uids. Raises UserError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"The list {path} cannot be read ({why}): name a text file in UTF-8.") from error
    for number, line in enumerate(lines, 1):
        entry = COMMENT.sub("", line).strip()
        try:
            key = _parse_line(entry) if entry else None
        except (BadUrlError, ValueError) as error:
            reason = error.detail if isinstance(error, BadUrlError) else error
            raise UserError(f"The list {path} has {entry[:100]!r} in line {number}: {reason}.") from error
        if key is not None:
            yield key, entry


def _parse_line(entry: str) -> str | None:
    if UID_DIGITS.fullmatch(entry):
        return uid_key(entry.lower())
    key = parse_entry(entry)
    return list_url_keys(entry)[0] if key is None else key  # a scheme that is never fetched, file:// among them


def describe_unknown(requests: Requests, known: Iterable[str]) -> list[str]:
    """What those requests were called by that no row of the root answers to."""
    answered = set(known)
    return [label for key, label in requests.labels.items() if key not in answered]
