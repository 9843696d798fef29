"""`curate browse`."""

from __future__ import annotations

import argparse
import sys

from curation.terminal import write_out
from jobs.commands.root_commands import open_root


def browse_root(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from curation.browse import Settings, serve  # aiohttp takes a third of a second

    settings = Settings(port=arguments.port, seconds=arguments.seconds)
    serve(open_root(arguments.root), settings, _tell_address)


def _tell_address(address: str) -> None:
    write_out(f"{address}\n\nOpen this address in a browser of this machine. Ctrl-C ends the page.\n")
    sys.stdout.flush()
