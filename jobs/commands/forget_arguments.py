"""What `curate forget` takes on the command line; what it does is imported when it is run."""

from __future__ import annotations

import argparse


def add_forget_arguments(command: argparse.ArgumentParser) -> None:
    """What `curate forget` takes besides ROOT."""
    for name, metavar, text in (
        ("--uid", "UID", "the pair with this uid"),
        ("--url", "URL", "every pair with this URL, in any spelling of it"),
        ("--host", "HOST", "every pair of this host and of the hosts below it"),
        ("--sha256", "SHA256", "every pair whose picture, as fetched or as stored, has this sha256"),
        ("--list", "FILE", "a line each: uids, URLs, hosts and sha256, as in opt-out lists"),
    ):
        command.add_argument(name, action="append", default=[], metavar=metavar, help=text)
    command.add_argument("--with-copies", action="store_true", help="also pairs with the same picture, and duplicates")
    command.add_argument("--reason", default="request", metavar="TEXT", help="kept with the tombstones (request)")
    command.add_argument("--runs", action="append", default=[], metavar="DIR", help="name checkpoints that are in it")
    command.add_argument("--resume", action="store_true", help="only finish what was interrupted, and prove it again")
    command.add_argument("--dry-run", action="store_true", help="say what would be touched; write nothing")
