"""What the documents say holds: links, commands, recipes, queries, names and the examples of CONTRIBUTING."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pytest

import filters
from curation import Manifest
from curation.costs.cluster import load_cluster
from curation.recipe import rules
from curation.recipe.config import Recipe
from curation.settings import from_dict
from curation.storage import Root
from tests.support import small_root
from tests.support.command_lines import PROGRAMS, WrongCommandError, check, check_names, make_targets
from tests.support.documents import PAGES, PROJECT, SHELL, Page, commands, page
from tests.support.python_names import OURS, imported_names, is_known
from trainer.chain_config import load_chain
from trainer.config import Config

PACKAGES = "|".join(OURS)
FILES = (".py", ".md", ".toml", ".json", ".jsonl", ".parquet", ".safetensors", ".txt")
EXAMPLES = page("CONTRIBUTING.md").examples()
"""Files that CONTRIBUTING shows: a module of ours, then the test that goes with it, and so on."""
MODULES = {file: file.removesuffix(".py").replace("/", ".") for file in EXAMPLES if not file.startswith("tests/")}
MADE_UP = {"README.md": ["mine.toml"], "docs/img2dataset.md": ["laion400m.toml", "mine.toml"]}
MADE_UP["docs/operations.md"] = ["mine.toml"]
"""Recipes that a page shows as the reader's own files."""
INDEX = "docs/index.md"
pages = pytest.mark.parametrize("name", PAGES)


def test_every_page_is_there_and_every_block_names_its_language() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/architecture.md", "docs/index.md", "docs/glossary.md"} <= set(PAGES)
    assert not [(name, block.text) for name in PAGES for block in page(name).blocks if not block.language]


def broken_links(this: Page) -> list[str]:
    """Links of `this` whose file or heading is not there."""
    broken = []
    for target in this.links():
        path, _, anchor = target.partition("#")
        name = str((PROJECT / this.name).parent.joinpath(path).resolve().relative_to(PROJECT)) if path else ""
        if not (PROJECT / name).exists() or anchor and anchor not in (page(name) if name else this).anchors():
            broken.append(target)
    return broken


@pages
def test_links_lead_to_files_and_headings_that_exist(name: str) -> None:
    assert not broken_links(page(name))


def test_a_broken_link_is_noticed() -> None:
    prose = "# A heading, with `code`\n[a](#a-heading-with-code) [b](#b) [c](docs/none.md) [d](docs/loader.md#none)"
    assert broken_links(Page("README.md", prose, ())) == ["#b", "docs/none.md", "docs/loader.md#none"]


def test_every_page_of_docs_ends_with_links_to_the_index_and_its_neighbours() -> None:
    links = page("docs/index.md").links()
    order = list(dict.fromkeys(target for target in links if re.fullmatch(r"[\w-]+\.md", target)))
    assert {f"docs/{target}" for target in order} == {name for name in PAGES if name.startswith("docs/")} - {INDEX}
    for before, name, after in zip(["index.md", *order], order, [*order[1:], "index.md"], strict=False):
        foot = page(f"docs/{name}").prose.rstrip().splitlines()[-1]
        assert {"index.md", before, after} == set(re.findall(r"\]\(([\w-]+\.md)\)", foot)), name


def test_each_word_of_the_glossary_is_used_and_says_where_it_is_explained() -> None:
    _, *entries = re.split(r"^## ", page("docs/glossary.md").prose, flags=re.MULTILINE)
    words = [entry.partition("\n")[0] for entry in entries]
    assert words == sorted(words) and len(words) > 20
    assert not [word for word, entry in zip(words, entries, strict=True) if "](" not in entry]
    code = [path.read_text(encoding="utf-8") for folder in OURS[1:] for path in (PROJECT / folder).rglob("*.py")]
    others = [page(name).prose for name in PAGES if name != "docs/glossary.md"]
    text = " ".join(" ".join([*code, *others]).replace("_", " ").lower().split())
    assert not [word for word in words if word.lower() not in text]


def commands_of(this: Page) -> Iterator[tuple[list[str], bool]]:
    """Each command of a page, and whether it stands in a code block, where it is whole."""
    for block in this.blocks:
        if block.language == SHELL:
            yield from ((words, True) for words in commands(block.text))
    for code in this.inline():
        if code.split()[0].removeprefix(".venv/bin/") in PROGRAMS and len(code.split()) > 1:
            yield from ((words, False) for words in commands(code))


@pages
def test_commands_are_what_their_parsers_take(name: str) -> None:
    for words, whole in commands_of(page(name)):
        found = check(words, whole=whole)
        if found is not None:
            check_names(found, MADE_UP.get(name, []))


@pytest.mark.parametrize(
    "command",
    [
        "curate dedup --recipe R.toml --root ROOT",
        "curate dedupe --recipe R.toml --root ROOT --previews x.html",
        "curate export ROOT --format csv --output FILE",
        "python -m trainer.train --config debug --num-gpu 8",
        "spark-submit jobs/select.py --recipe R.toml --root ROOT",
        "make bench-all",
        "pip install '.[sparks]'",
    ],
)
def test_a_wrong_command_is_noticed(command: str) -> None:
    with pytest.raises(WrongCommandError):
        check(next(commands(command)), whole=True)


def test_make_alone_prints_every_target_with_a_sentence() -> None:
    text = (PROJECT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert make_targets() == set(phony.split())
    assert ".DEFAULT_GOAL := help" in text
    assert all(sentence.endswith(".") for sentence in re.findall(r"^[a-z-]+:.*## (.*)$", text, re.MULTILINE))


def block_file(folder: Path, text: str) -> Path:
    """The block as a file."""
    file = folder / "block.toml"
    file.write_text(text)
    return file


def test_toml_blocks_are_recipes_configurations_chains_or_clusters_and_their_rules_parse(tmp_path: Path) -> None:
    blocks = [(name, block) for name in PAGES for block in page(name).blocks if block.language == "toml"]
    assert len(blocks) >= 4
    recipe_keys = {field.name for field in fields(Recipe)}
    for name, block in blocks:
        data = tomllib.loads(block.text)
        if "stages" in data:
            load_chain(block_file(tmp_path, block.text))
            continue
        if "machines" in data:
            load_cluster(block_file(tmp_path, block.text))
            continue
        if not set(data) <= recipe_keys:
            from_dict(Config, data, name)
            continue
        recipe = from_dict(Recipe, data, name)
        scores = [filters.build(each, options).writes for each, options in recipe.filters.items()]
        rules.parse(recipe.rules, rules.manifest_columns(scores))


def section_keys() -> dict[str, set[str]]:
    """The keys of each section of recipes and configurations, by its name."""
    found: dict[str, set[str]] = {}
    for cls in (Recipe, Config):
        for section, hint in get_type_hints(cls).items():
            for each in (hint, *get_args(hint)):
                if is_dataclass(each):
                    found.setdefault(section, set()).update(field.name for field in fields(each))
    return found


@pages
def test_settings_that_are_named_exist(name: str) -> None:
    sections = section_keys()
    for code in page(name).inline():
        section, _, key = code.partition("=")[0].strip().partition(".")
        if section in sections and key.isidentifier() and not code.endswith(FILES):
            assert key in sections[section], code


@pages
def test_python_blocks_compile_and_import_what_exists(name: str, examples: Path) -> None:
    for block in page(name).blocks:
        if block.language == "python":
            compile(block.text, name, "exec")
            assert not [each for each in imported_names(block.text) if not is_known(each)]


@pages
def test_files_and_names_in_running_text_exist(name: str) -> None:
    for code in page(name).inline():
        if re.search("[A-Z]{2}", code):  # a placeholder: jobs/STAGE.py
            continue
        if re.fullmatch(rf"({PACKAGES}|docs|scripts)/[\w./-]+", code):
            assert (PROJECT / code).exists() or code in EXAMPLES, code
        elif re.fullmatch(rf"({PACKAGES})(\.\w+)+", code) and not code.endswith(FILES):
            assert is_known(code), code


def test_methods_of_root_that_are_named_exist() -> None:
    named = {match for name in PAGES for match in re.findall(r"`Root\.(\w+)`", page(name).prose)}
    assert named and not {method for method in named if not hasattr(Root, method)}


def modules_in(package: str) -> set[str]:
    """Modules and folders of a package that are not private, dotted."""
    found = {path.stem for path in (PROJECT / package).iterdir() if path.suffix == ".py" or list(path.glob("*.py"))}
    return {f"{package}.{name}" for name in found if not name.startswith("_")}


@pytest.mark.parametrize("package", ["curation", "jobs", "trainer"])
def test_architecture_lists_every_module(package: str) -> None:
    assert not modules_in(package) - set(page("docs/architecture.md").inline())


def test_the_tree_of_contributing_lists_every_folder() -> None:
    tree = page("CONTRIBUTING.md").blocks[0].text
    folder, listed = "", set()
    for indent, name in re.findall(r"^( *)([\w-]+)/ ", tree, re.MULTILINE):
        folder = folder if indent else name
        listed.add(f"{folder}/{name}" if indent else name)
    assert not [path for path in listed if not (PROJECT / path).is_dir()]
    parts = [path for package in ("curation", "jobs", "trainer") for path in (PROJECT / package).iterdir()]
    folders = {str(path.relative_to(PROJECT)) for path in parts if path.is_dir() and path.name != "__pycache__"}
    assert not folders - listed


def test_an_unknown_name_is_noticed() -> None:
    assert not is_known("curation.errors.Usererror") and not is_known("trainer.nothing")
    text = "from trainer import models\nmodels.construct()"
    assert [name for name in imported_names(text) if not is_known(name)] == ["trainer.models.construct"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manifest]:
    """The manifest of a small root with every table and the scores of one filter."""
    root = Root(tmp_path_factory.mktemp("docs") / "root")
    root.create()
    made = small_root.build(root)
    small_root.duplicates(made, {})
    small_root.pack(made, small_root.select(made))
    scores = pa.table({"uid": [], "aspect_ratio": []}, pa.schema({"uid": pa.string(), "aspect_ratio": pa.float32()}))
    root.publish_parquet(f"scores_aspect_ratio/{small_root.UNITS[0]}.parquet", scores)
    opened = Manifest(root)
    yield opened
    opened.close()


def queries(this: Page) -> Iterator[tuple[str, list[Any]]]:
    """Every SELECT of a page, with its parameters; a condition of the trainer as the SELECT that it becomes."""
    for block in this.blocks:
        if block.language == "sql":
            yield from ((line, []) for line in block.text.splitlines())
        elif block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "query":
                    sql, *parameters = map(ast.literal_eval, node.args)
                    yield sql, parameters[0] if parameters else []
    for words, whole in commands_of(this):
        found = check(words, whole=whole)
        if getattr(found, "sql", None):
            yield str(found.sql), []
        for text in getattr(found, "set", []):
            if text.startswith(("data.where=", "eval.where=")):
                yield f"select uid from manifest where {text.partition('=')[2]}", []
    yield from ((code, []) for code in this.inline() if re.match("select .* from ", code))


@pages
def test_queries_run(name: str, manifest: Manifest) -> None:
    for sql, parameters in queries(page(name)):
        manifest.query(sql, parameters).fetchall()


def test_there_are_queries() -> None:
    assert sum(len(list(queries(page(name)))) for name in PAGES) >= 12


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files that CONTRIBUTING shows, in which the packages look for modules too."""
    for file, text in EXAMPLES.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in MODULES.values():
        package = importlib.import_module(name.rpartition(".")[0])
        monkeypatch.setattr(
            package, "__path__", [*package.__path__, str(tmp_path / package.__name__.replace(".", "/"))]
        )
    yield tmp_path
    for name in MODULES.values():
        sys.modules.pop(name, None)


@pytest.mark.parametrize("file", [file for file in EXAMPLES if file.startswith("tests/")])
def test_the_test_of_each_example_passes(file: str, examples: Path, root: Root) -> None:
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[file], file, "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test(**{"root": root} if "root" in inspect.signature(test).parameters else {})


def test_each_example_stands_before_its_test() -> None:
    files = list(EXAMPLES)
    assert len(files) == 10
    for module, test in zip(files[::2], files[1::2], strict=True):
        assert test == f"tests/{Path(module).parent}/test_{Path(module).name}".replace("models/configs", "models")


def test_the_example_of_a_filter_keeps_the_contract_on_dirty_rows(examples: Path) -> None:
    captions = [None, "", " ", "123", "A dog, 100% $1 it's \\n", "Ein schöner Hund", "一只猫", "\x00", "cat " * 300]
    batch = pa.RecordBatch.from_arrays([pa.array(captions, pa.string())], ["caption"])
    assert "caption_capitals" in filters.names()
    example = filters.build("caption_capitals", {"min_letters": 2})
    values = example.apply(batch)["caption_capitals"].to_pylist()
    assert all(value is None or 0 <= value <= 1 for value in values)
    assert example.apply(batch.slice(0, 0)).num_rows == 0
    rules.parse({"quiet": "caption_capitals <= 0.5"}, rules.manifest_columns([example.writes]))
