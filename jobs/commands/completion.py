"""What a shell completes after `curate`: a script for bash, written from the command line itself."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Iterable, Mapping

from curation.recipe.config import SHIPPED, Recipe

Parsers = Mapping[str, argparse.ArgumentParser]
_SCRIPT = """\
# Completion of curate for bash: source <(curate completion)
_curate() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} words=
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W {commands} -- "$current"))
    return
  fi
  case "$command $previous" in
{values}
  esac
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    case "$previous" in
      --set) compopt -o nospace ;;
      --recipe) COMPREPLY+=($(compgen -f -- "$current")) ;;
    esac
    return
  fi
  case "$command $current" in
{options}
  esac
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -F _curate curate
"""


def render_completion(parsers: Parsers) -> str:
    """A bash script that completes the commands `parsers`, their options, the values of options, and files."""
    patterns: dict[str, list[str]] = {}
    for name, parser in parsers.items():
        for action in parser._actions:
            for flag in action.option_strings if (words := _quote(_find_values(action))) else ():
                patterns.setdefault(words, []).append(f'"{name} {flag}"')
    values = [f"    {'|'.join(places)}) words={words} ;;" for words, places in patterns.items()]
    options = [
        f'    "{name} -"*) words={_quote(flag for action in parser._actions for flag in action.option_strings)} ;;'
        for name, parser in parsers.items()
    ]
    return _SCRIPT.format(commands=_quote(parsers), values="\n".join(values), options="\n".join(options))


def _find_values(action: argparse.Action) -> list[str]:
    """What may stand behind the option `action`; nothing where it is no option, or where anything may."""
    if "--recipe" in action.option_strings:
        return sorted(path.stem for path in SHIPPED.glob("*.toml"))
    if "--set" in action.option_strings:
        return [f"{key}=" for key in list_settings()]
    return [str(choice) for choice in action.choices or ()] if action.option_strings else []


def list_settings() -> list[str]:
    """Every `section.key` of the recipe whose section has a fixed set of keys."""
    empty = Recipe()
    return [
        f"{section.name}.{key.name}"
        for section in dataclasses.fields(Recipe)
        if dataclasses.is_dataclass(value := getattr(empty, section.name))
        for key in dataclasses.fields(value)
    ]


def _quote(words: Iterable[str]) -> str:
    """`words` as one word of a shell; empty without any."""
    text = " ".join(words)
    return shlex.quote(text) if text else ""
