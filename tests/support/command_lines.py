"""Commands in documents against the argument parsers that really read them. Nothing is run."""

from __future__ import annotations

import argparse
import importlib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from curation.recipe.config import Recipe
from curation.settings import apply_overrides, from_dict, read_toml
from jobs import cli
from jobs.spark import stage
from jobs.stages import STAGES
from tests.support.documents import PROJECT
from trainer.chain_config import SHIPPED as CHAINS
from trainer.chain_config import load_chain
from trainer.config import Config

PROGRAMS = ("curate", "make", "python", "spark-submit", "deepspeed", "torchrun", "srun", "pytest", "pip")
_MODULE = re.compile(r"(trainer|benchmarks)\.\w+")


class WrongCommandError(AssertionError):
    """What a parser says of a command in a document."""


class _Captured(BaseException):
    """Carries a parser out of the program that has just built it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def built_by(main: Callable[[], Any]) -> argparse.ArgumentParser:
    """The parser with which `main` would read its command line."""

    def capture(parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise _Captured(parser)

    original = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = capture  # type: ignore[assignment,method-assign]
    try:
        main()
    except _Captured as captured:
        return captured.parser
    finally:
        argparse.ArgumentParser.parse_args = original  # type: ignore[method-assign]
    raise AssertionError(f"{main} reads no command line")


def make_targets() -> set[str]:
    """The targets of the Makefile that `make` alone prints."""
    return set(re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE))


def check(words: Sequence[str], *, whole: bool) -> argparse.Namespace | None:
    """What the command's own parser makes of it; None for programs that are not ours. Raises WrongCommandError.

    In running text (`whole` False) required arguments may be left out and `…` stands for any value.
    """
    program = words[0]
    if program == "make":
        _require(set(words[1:]) <= make_targets(), words, f"the targets are {sorted(make_targets())}")
    elif program == "pytest":
        paths = [word for word in words if "/" in word]
        _require(all(map(_exists, paths)), words, "a path does not exist")
    elif program == "pip":
        _check_pip(words)
    elif program == "curate":
        return _parse(cli.parser(), words[1:], whole)
    elif program == "spark-submit":
        return _check_spark_submit(words, whole)
    elif program in PROGRAMS and (module := next((w for w in words if _MODULE.fullmatch(w)), "")):
        _require(words[words.index(module) - 1] in ("-m", "--module"), words, f"{module} needs -m or --module")
        parser = built_by(importlib.import_module(module).main)
        return _parse(parser, words[words.index(module) + 1 :], whole)
    return None


def _require(holds: bool, words: Sequence[str], otherwise: str) -> None:
    if not holds:
        raise WrongCommandError(f"{' '.join(words)}: {otherwise}")


def _exists(path: str) -> bool:
    return (PROJECT / path.partition("::")[0]).exists()


def _check_pip(words: Sequence[str]) -> None:
    """Files after -c and extras of this project exist."""
    if "-c" in words:
        _require(_exists(words[words.index("-c") + 1]), words, "there is no such file")
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"(?:^| )(?:\.|clip-curation)\[([\w,]+)\]", " ".join(words)):
        _require(set(named.split(",")) <= set(extras), words, f"the extras are {sorted(extras)}")


def _check_spark_submit(words: Sequence[str], whole: bool) -> argparse.Namespace | None:
    script = next((word for word in words if word.startswith("jobs/")), "")
    if script in ("", "jobs/STAGE.py", "jobs/NAME.py"):
        return None
    scripts = {module.replace(".", "/") + ".py" for module in stage_modules()}
    _require(script in scripts, words, f"the stages are {sorted(scripts)}")
    parser = argparse.ArgumentParser()
    stage.add_arguments(parser)
    return _parse(parser, words[words.index(script) + 1 :], whole)


def stage_modules() -> list[str]:
    """Dotted names of the stages' modules, in the order of a run."""
    return [module for module, _ in STAGES.values()]


def _parse(parser: argparse.ArgumentParser, words: Sequence[str], whole: bool) -> argparse.Namespace:
    for each in _with_subparsers(parser):
        each.allow_abbrev = False
        each.error = lambda message: _require(False, words, message)  # type: ignore[method-assign,assignment]
        if not whole:
            _relax(each)
    if not whole:
        words = [{"STAGE": "download"}.get(word, word.strip("[]")) for word in words if word not in ("…", "...")]
    found, unknown = parser.parse_known_args(list(words))
    _require(not unknown, words, f"unknown: {unknown}")
    return found


def _with_subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _with_subparsers(each)


def _relax(parser: argparse.ArgumentParser) -> None:
    """Make every argument and every value optional."""
    for action in parser._actions:
        action.required = False
        if not isinstance(action, argparse._SubParsersAction):
            action.type = None
            action.nargs = {None: "?", "+": "*"}.get(action.nargs, action.nargs)


def check_names(found: argparse.Namespace, files: Iterable[str]) -> None:
    """Recipes and `--set` keys that a command names exist; `files` are TOML files that its page makes up."""
    for option, cls, folder, default in (
        ("recipe", Recipe, "curation/recipes", "demo"),
        ("config", Config, "trainer/recipes", "debug"),
    ):
        name = getattr(found, option, None)
        if name is None:
            continue
        if name in files or re.fullmatch(r"[A-Z]+(\.toml)?", name):
            name = default
        file = PROJECT / name if "/" in name else PROJECT / folder / f"{name}.toml"
        overrides = [text for text in found.set if text != "section.key=value"]
        if (CHAINS / f"{name}.toml").exists():
            load_chain(name, overrides)
            continue
        from_dict(cls, apply_overrides(read_toml(file), overrides), name)
