"""The command line: help of every command, what looks at a root, exit statuses."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import __version__
from curation.errors import UserError
from curation.recipe.config import Recipe, SourceConfig
from curation.storage import Root
from jobs.cli import main, parser
from jobs.stages import STAGES, load_stages, plan_stages
from tests.support import packed_root, small_root
from tests.support.command import Command, contents
from tests.support.small_root import SmallRoot

COMMANDS = (
    *STAGES,
    "run",
    "check",
    "plan",
    "status",
    "verify",
    "seal",
    "report",
    "browse",
    "query",
    "adopt",
    "export",
    "gc",
    "compact",
    "merge",
    "forget",
    "sample",
    "move",
    "demo",
    "completion",
)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def made(root: Root) -> SmallRoot:
    built = small_root.build(root)
    small_root.pack(built, small_root.select(built))
    return built


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_command_and_argument(command: Command, name: str) -> None:
    assert command(name, "--help") == 0
    assert command.out.startswith(f"usage: curate {name} ") and command.err == ""
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    one = commands.choices[name]
    assert one.description and one.description in re.sub(r"\s+", " ", command.out)
    assert [action.dest for action in one._actions if not action.help] == []


def test_help_of_the_whole_names_every_command(command: Command) -> None:
    assert command("--help") == 0
    assert set(re.findall(r"^    (\w+)(?: |$)", command.out, re.MULTILINE)) == set(COMMANDS)
    assert command("--version") == 0
    assert command.out == f"curate {__version__}\n"


def test_every_stage_has_its_job() -> None:
    assert [stage.name for stage in load_stages()] == list(STAGES)
    for name in STAGES:
        arguments = parser().parse_args([name, "--recipe", "r", "--root", "x", "--set", "a.b=1", "--set", "c.d=2"])
        assert (arguments.recipe, arguments.root, arguments.set) == ("r", "x", ["a.b=1", "c.d=2"])


def test_status_of_a_root_at_every_stage(command: Command, root: Root) -> None:
    assert command("status", root.path) == 0
    assert command.out.split() == ["metadata", "0", "0.00", "%", "samples", "0", "0.00", "%"]
    made = small_root.build(root)
    assert command("status", root.path) == 0
    lines = {line.split()[0]: line.split()[1] for line in command.out.splitlines() if not line.startswith(" ")}
    assert lines == {"metadata": "42", "samples": "40", "pictures": "32"}
    kept = small_root.select(made)
    small_root.pack(made, kept)
    assert command("status", root.path) == 0
    assert re.search(rf"^kept +{len(kept)} .*\npacked +{len(kept)} ", command.out, re.MULTILINE)
    assert re.search(r"^  - wide +\d+ .*width / height >= 1.2$", command.out, re.MULTILINE)


def test_status_of_a_damaged_root_says_where_to_learn_what_mends_it(command: Command, made: SmallRoot) -> None:
    place = Path(made.root.full(f"downloads/{made.root.units('downloads')[0]}.parquet"))
    place.write_bytes(place.read_bytes()[:1_000])
    said = command.refuses("status", made.root.path)
    assert "downloads cannot be read (" in said and f"run `curate verify {made.root.base}`" in said
    assert command("verify", made.root.path) == 1 and place.name in command.err


def test_verify_says_so_or_names_the_first_difference(command: Command, made: SmallRoot) -> None:
    assert command("verify", made.root.path) == 0
    assert command.out.startswith("Every row is accounted for once") and command.err == ""
    shard = sorted(Path(made.root.path, "raw").iterdir())[0]
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    assert command("verify", made.root.path) == 1
    assert command.out == ""
    assert re.fullmatch(rf"curate verify: In raw/{shard.name}, row \w+ at offset 512: .*sha256.*\n", command.err)


def test_verify_of_train_shards(command: Command, made: SmallRoot) -> None:
    shard = sorted(Path(made.root.path).glob("train/*/*.tar"))[-1]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert command("verify", made.root.path) == 1
    assert shard.name in command.err and command.err.count("\n") == 1


def test_json_says_what_the_text_says(command: Command, made: SmallRoot) -> None:
    assert command("status", made.root.path, "--json") == 0
    found = json.loads(command.out)
    counts = {row["stage"]: row["count"] for row in found["funnel"] if row["reason"] is None}
    assert counts["metadata"] == 42 and counts["packed"] == counts["kept"] > 0
    assert {row["table"]: (row["num_done"], row["num_waiting"]) for row in found["units"]}["downloads"] == (2, 0)
    assert (found["stale"], found["running"], found["missing"]) == ([], None, [])
    assert command("verify", made.root.path, "--json") == 0
    assert json.loads(command.out) == {"right": True, "quick": False, "differences": []}
    made.root.remove(f"downloads/{made.root.units('downloads')[0]}.parquet")
    assert command("verify", made.root.path, "--json", "--all") == 1 and command.err == ""
    found = json.loads(command.out)
    assert not found["right"] and any("downloads" in sentence for sentence in found["differences"])
    assert command("status", made.root.path, "--json") == 0
    assert {row["command"]: row["num_waiting"] for row in json.loads(command.out)["units"]}["download"] == 1


def test_query_to_the_terminal_and_into_a_file(command: Command, made: SmallRoot, tmp_path: Path) -> None:
    ask = "select status, count(*) as n from downloads group by status order by n desc, status"
    assert command("query", made.root.path, ask, "--format", "csv") == 0
    assert command.out.splitlines()[:2] == ['"status","n"', '"ok",32']
    assert command("query", made.root.path, ask, "--output", tmp_path / "t.txt") == 0
    assert (tmp_path / "t.txt").read_text().splitlines()[2].split() == ["ok", "32"]


def test_looking_changes_nothing(command: Command, made: SmallRoot, tmp_path: Path) -> None:
    before = contents(Path(made.root.path))
    for call in (("status",), ("verify",), ("query", "select 1"), ("report", "--output", tmp_path / "r.html")):
        assert command(call[0], made.root.path, *call[1:]) == 0
    assert command.out == f"{tmp_path / 'r.html'}\n"
    assert contents(Path(made.root.path)) == before


def test_without_a_command_the_way_to_a_model_is_shown(command: Command) -> None:
    assert command() == 0
    lines = command.out.splitlines()
    assert len(lines) == 7 and command.err == ""
    named = [line.split()[1] for line in lines[1:] if line.startswith("  curate")]
    assert named == ["demo", "check", "run", "status", "--help"] and "trainer.train" in lines[5]


@pytest.mark.parametrize(("word", "hint"), [("statsu", "did you mean status?"), ("x", "there are ingest, download")])
def test_a_command_that_does_not_exist_is_one_sentence(command: Command, word: str, hint: str) -> None:
    said = command.refuses(word, "somewhere")
    assert said.startswith(f"There is no command '{word}'") and hint in said


def test_compact_says_what_it_joined_and_undo_what_was_damaged(command: Command, tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "packed")
    assert command("compact", root.path) == 0 and command.out == "32 files of units were joined into 4.\n"
    assert command("verify", root.path) == 0
    assert command("compact", root.path) == 0 and command.out == "0 files of units were joined into 0.\n"
    (packed,) = (tmp_path / "packed/downloads/packed").iterdir()
    data = bytearray(packed.read_bytes())
    data[100] ^= 1
    packed.write_bytes(data)
    assert command("compact", root.path, "--undo") == 1 and command.out == "Every sound unit has a file of its own.\n"
    assert (
        command.err.count("\n") == 1
        and "-000000.parquet was damaged and is missing now: run `curate download`" in command.err
    )
    assert command("compact", root.path, "--undo") == 0 and command.out == "Every unit has a file of its own.\n"


def test_gc_lists_and_deletes_when_told_to(command: Command, made: SmallRoot) -> None:
    old = "train/0123456789ab"
    made.root.publish(f"{old}/sizes.json", b"{}")
    assert command("gc", made.root.path) == 0
    assert old in command.out and "--yes" in command.out and made.root.exists(old)
    assert command("gc", made.root.path, "--yes") == 0
    assert old in command.out and "deleted" in command.out and not made.root.exists(old)
    assert command("gc", made.root.path) == 0 and command.out.startswith("No old version")
    assert command("verify", made.root.path) == 0


def test_check_says_that_a_recipe_is_right_and_writes_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"URL": ["http://h.test/1.jpg"], "TEXT": ["a"]}), tmp_path / "part.parquet")
    text = '[[sources]]\nname = "s"\npaths = ["part.parquet"]\n[filters.blur]\n[rules]\nsmall = "width > 10"\n'
    (tmp_path / "r.toml").write_text(text)
    before = contents(tmp_path)
    for more in ((), ("--root", "new")):
        assert command("check", "--recipe", "r.toml", *more) == 0
        assert command.out.startswith("The recipe is right: 1 sources, 1 filters, 1 rules, model efficientnet_lite0.")
    assert command("check", "--recipe", "r.toml", "--json") == 0
    found = json.loads(command.out)
    assert found["right"] and (found["sources"], found["rules"], found["stages"]) == (1, 1, list(STAGES))
    for wrong, word in (
        ("rules.small=widht > 1", "did you mean width"),
        ("filters.blurr={}", "did you mean blur"),
        ('sources.0.paths=["nowhere.parquet"]', "nowhere"),
        ("download.image_sise=3", "did you mean image_size"),
        ('embed.model="nothing.onnx"', "nothing.onnx"),
    ):
        assert word in command.refuses("check", "--recipe", "r.toml", "--set", wrong)
    assert contents(tmp_path) == before


def test_a_root_of_adopted_folders_goes_on_without_sources(root: Root) -> None:
    made = small_root.build(root)
    recipe = Recipe(rules={"wide": "width > 10"})
    assert plan_stages(recipe, root) == (list(STAGES), "")
    (plan,) = root.list("plans")
    root.publish_json(f"plans/{plan}", root.read_json(f"plans/{plan}") | {"adopted": True})
    names, said = plan_stages(recipe, root)
    assert names == ["embed", "dedupe", "score", "select", "pack"] and "ingest and download are left out" in said
    more = Recipe(sources=(SourceConfig(name="more", paths=("x.parquet",)),))
    assert plan_stages(more, root) == (list(STAGES), "")
    root.remove(f"downloads/{small_root.UNITS[0]}.parquet")
    with pytest.raises(UserError, match="adopted shards left to read: run the same `curate adopt` again"):
        plan_stages(recipe, root)
    assert made.samples


def test_settings_of_a_what_if_reach_the_recipe_and_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--set` was for the file of rules alone: a path of the recipe's sources was refused as one of its own."""
    found = list[Recipe]()

    def preview(recipe: Recipe, wanted: Recipe, root: Root, num_examples: int) -> str:
        found.extend((recipe, wanted))
        return "said\n"

    monkeypatch.setattr("jobs.selection.preview_rules", preview)
    (tmp_path / "rules.toml").write_text('[rules]\nwords = "caption_words >= 8"\n')
    settings = ('sources.0.paths=["a.parquet"]', "select.memory_gb=1.5", "rules.words=caption_words >= 9")
    options = [word for setting in settings for word in ("--set", setting)]
    root = packed_root.build(tmp_path / "root")
    call = ["select", "--recipe", "flickr8k", "--root", root.base, "--what-if", str(tmp_path / "rules.toml"), *options]
    with pytest.raises(SystemExit) as ended:
        main(call)
    assert not ended.value.code and capsys.readouterr().out == "said\n"
    recipe, wanted = found
    assert recipe.sources[0].paths == ("a.parquet",) and recipe.select.memory_gb == wanted.select.memory_gb == 1.5
    assert wanted.rules == {"words": "caption_words >= 9"} and recipe.rules["words"] == "caption_words >= 4"
