"""What the commands of `curate` share on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

Commands: TypeAlias = (
    "argparse._SubParsersAction[argparse.ArgumentParser]"  # argparse gives its return type no public name
)


def add_command(
    commands: Commands, name: str, text: str, action: Callable[[argparse.Namespace], Any]
) -> argparse.ArgumentParser:
    """The parser of `curate NAME`, which `text` explains and `action` carries out; it may return an exit status."""
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(action=action)
    return command


def add_root(command: argparse.ArgumentParser, name: str = "root") -> None:
    """ROOT, a root that stands, as the argument `name`."""
    command.add_argument(name, metavar="ROOT", help="folder or URL that a run has filled")


def add_json(command: argparse.ArgumentParser) -> None:
    """`--json`."""
    command.add_argument("--json", action="store_true", help="one line of JSON for programs")
