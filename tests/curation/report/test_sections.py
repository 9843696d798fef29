"""Each section of the page: its numbers on a small root, and the sentence that it says when what it reads is absent."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation.compaction.compact import compact
from curation.manifest.manifest import Manifest
from curation.report.download_times import read_times
from curation.report.facts import Facts
from curation.report.section import find_sections
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.recorder import sealing
from curation.sums.seal import seal_root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot

HOSTILE = "<script>alert(1)</script>"


def render(root: Root, title: str) -> str:
    """The section called `title`."""
    (section,) = [section for section in find_sections() if section.title == title]
    with closing(Manifest(root)) as manifest:
        return section.render(Facts(manifest))


def test_every_module_is_a_section_in_an_order_of_its_own() -> None:
    sections = find_sections()
    folder = Path(str(__import__("curation.report.sections", fromlist=["x"]).__file__)).parent
    assert len(sections) == len([*folder.glob("[!_]*.py")])
    assert len({section.title for section in sections}) == len({section.place for section in sections}) == len(sections)


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Since the last selection", "There is no selection yet"),
        ("Sources", "There are no samples yet"),
        ("Scores", "No picture has come yet"),
        ("Duplicates", "No duplicates have been looked for yet"),
        ("Hosts", "No row names a host"),
        ("Sizes", "No picture has come yet"),
        ("Languages", "No two languages are known"),
        ("Captions", "No picture has come yet"),
        ("Concepts", "No concept of a caption is known"),
        ("Download over time", "There are no logs of a download"),
        ("Pictures", "Nothing has been decided yet"),
        ("Downloads that failed", "Nothing has been downloaded yet"),
        ("Training", "No run of a training lies under the root"),
        ("How it was made", "No stage has begun yet"),
    ],
)
def test_what_is_absent_is_said_in_a_sentence(root: Root, title: str, said: str) -> None:
    html = render(root, title)
    assert said in html and "<svg" not in html


def test_each_source_has_its_samples_pictures_duplicates_and_kept_rows(made: SmallRoot) -> None:
    html = render(made.root, "Sources")
    for source in ("coyo", "laion"):
        uids = [uid for uid, row in made.samples.items() if row["source"] == source]
        came = [uid for uid in uids if uid in made.images]
        kept = sum(made.downloads[uid]["width"] / made.downloads[uid]["height"] >= 1.2 for uid in came)
        removed = made.root.read_parquet(f"duplicates/{small_root.VERSION}/part-00000.parquet")["uid"].to_pylist()
        counts = (len(uids), len(came), sum(uid in uids for uid in removed), kept)
        cells = "".join(f'<td class="number">{count}</td>' for count in counts)
        assert f'<td>{source}</td>{cells}<td class="number">{100 * kept / len(uids):.2f} %</td>' in html


def test_duplicates_are_counted_by_tier_by_similarity_and_by_group(made: SmallRoot) -> None:
    uids = sorted(made.images)
    rows = [
        {"uid": uid, "kept_uid": uids[0], "tier": tier, "similarity": similarity, "component": uids[0]}
        for uid, tier, similarity in zip(
            uids[1:6],
            ["exact", "embedding", "embedding", "embedding", HOSTILE],
            [1.0, 0.951, 0.9599, 1.0, 0.9],
            strict=True,
        )
    ]
    rel = f"duplicates/{small_root.VERSION}/part-00000.parquet"
    made.root.publish_parquet(rel, pa.Table.from_pylist(rows))
    html = render(made.root, "Duplicates")
    assert '<td>embedding</td><td class="number">3</td><td class="number">1</td>' in html
    assert "0.95 to 0.96: 2 rows removed" in html and "0.99 to 1.00: 1 rows removed" in html
    assert '<td>6 to 10</td><td class="number">1</td><td class="number">5</td>' in html and HOSTILE not in html


def test_a_search_that_found_no_duplicate_says_so(made: SmallRoot) -> None:
    small_root.duplicates(made, {})
    assert "No duplicates were found." in render(made.root, "Duplicates")


def test_rows_gained_and_lost_since_the_last_selection_have_their_reasons(made: SmallRoot) -> None:
    ok = sorted(made.images)
    publish_version(made, "aaaaaaaaaaaa", dict.fromkeys(ok[:3], "small") | dict.fromkeys(ok[3:5], "both"))
    publish_version(
        made, "bbbbbbbbbbbb", dict.fromkeys(ok[3:5], "both") | dict.fromkeys(ok[5:9], HOSTILE) | {ok[0]: "new"}
    )
    html = render(made.root, "Since the last selection")
    assert f"Since selection aaaaaaaaaaaa: {len(ok) - 5} rows were kept, {len(ok) - 7} are; 2 gained, 4 lost." in html
    assert "1 others are not kept for another reason." in html
    assert '<td>small</td><td class="number">2</td>' in html
    assert '<td>&lt;script&gt;alert(1)&lt;/script&gt;</td><td class="number">4</td>' in html


def test_selections_in_packed_files_are_compared_as_those_in_small_ones(made: SmallRoot) -> None:
    ok = sorted(made.images)
    publish_version(made, "aaaaaaaaaaaa", dict.fromkeys(ok[:3], "small"))
    seal_root(made.root, summed_tables(made.root))
    compact(made.root)
    with sealing(made.root, ["selection"]) as recording:
        publish_version(replace(made, root=recording), "bbbbbbbbbbbb", dict.fromkeys(ok[2:4], "large"))
    compact(made.root)
    assert made.root.own_sizes("selection/aaaaaaaaaaaa") == made.root.own_sizes("selection/bbbbbbbbbbbb") == {}
    html = render(made.root, "Since the last selection")
    assert f"Since selection aaaaaaaaaaaa: {len(ok) - 3} rows were kept, {len(ok) - 2} are; 2 gained, 1 lost." in html
    assert "1 others are not kept for another reason." in html


def test_rows_of_a_unit_that_is_new_are_gained_as_such(made: SmallRoot) -> None:
    publish_version(made, "aaaaaaaaaaaa", {})
    made.root.remove(f"selection/aaaaaaaaaaaa/{UNITS[1]}.parquet")
    publish_version(made, "bbbbbbbbbbbb", {})
    new = sum(made.units[uid] == UNITS[1] for uid in made.images)
    assert f'<td>not in the root then</td><td class="number">{new}</td>' in render(
        made.root, "Since the last selection"
    )


def test_the_first_selection_and_the_same_rows_are_said(made: SmallRoot) -> None:
    assert "No earlier selection lies beside the current one" in render(made.root, "Since the last selection")
    publish_version(made, "aaaaaaaaaaaa", {})
    made.root.remove(f"selection/{small_root.VERSION}")
    publish_version(made, "bbbbbbbbbbbb", {})
    assert "The same rows are kept." in render(made.root, "Since the last selection")


def test_a_damaged_earlier_selection_hides_nothing_else(made: SmallRoot) -> None:
    publish_version(made, "aaaaaaaaaaaa", {})
    made.root.remove(f"selection/{small_root.VERSION}")
    publish_version(made, "bbbbbbbbbbbb", {})
    Path(made.root.full(f"selection/aaaaaaaaaaaa/{UNITS[0]}.parquet")).write_bytes(b"PAR1 it is not")
    assert "The earlier selection aaaaaaaaaaaa cannot be read" in render(made.root, "Since the last selection")


def publish_version(made: SmallRoot, version: str, reasons: dict[str, str]) -> None:
    """Publish a selection that removes the pictures of `reasons`, each for its own, and keeps the others."""
    whys = {uid: f"download:{row['status']}" for uid, row in made.downloads.items() if row["status"] != "ok"} | reasons
    files = []
    for unit in UNITS:
        uids = sorted(uid for uid in made.samples if made.units[uid] == unit)
        told = [whys.get(uid) for uid in uids]
        table = pa.table({"uid": uids, "kept": [why is None for why in told], "reason": pa.array(told, pa.string())})
        files.append(f"selection/{version}/{unit}.parquet")
        made.root.publish_parquet(files[-1], table)
    made.root.publish_current("selection", version, files, {"rules": {}, "order": [], "quantiles": []}, {})


def write_log(root: Root, unit: str, **changes: Any) -> None:
    log = {"unit": unit, "round": 0, "rows": 9, "at": 1_000_060.0, "seconds": 60.0, "hosts": {}, "statuses": {"ok": 6}}
    root.publish_json(f"logs/download/{unit}.0.json", log | changes)


def test_speed_and_failures_over_time_come_from_the_logs(root: Root) -> None:
    write_log(root, "a-000000", statuses={"ok": 60, HOSTILE: 30})
    write_log(root, "a-000001", at=1_000_120.0, statuses={"timeout": 30})
    times = read_times(root)
    assert times is not None and times.start == 1_000_000 and times.width == pytest.approx(2)
    assert [round(sum(counts.values()), 6) for counts in times.statuses] == pytest.approx([3.0] * 30 + [1.0] * 30)
    html = render(root, "Download over time")
    assert "120 rows ended in 120 s, from 12 Jan 13:46:40 UTC, 1.0 a second on average; 50.0 % came." in html
    assert "&lt;script&gt;" in html and HOSTILE not in html and "timeout" in html


@pytest.mark.parametrize("damage", [{"seconds": None}, {"at": math.inf}, {"statuses": {}}, {"statuses": {"ok": 0}}])
def test_a_log_that_says_no_time_is_passed_over(root: Root, damage: dict[str, Any]) -> None:
    write_log(root, "a-000000", **damage)
    assert read_times(root) is None


def test_of_very_many_logs_some_stand_for_all(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.report.download_times.MAX_LOGS", 3)
    for number in range(8):
        write_log(root, f"a-{number:06d}")
    times = read_times(root)
    assert times is not None and times.every == 3 and times.totals == {"ok": 3 * 3 * 6}


def test_it_says_how_it_was_made_table_by_table(made: SmallRoot) -> None:
    made.root.begin_stage("downloads", {"image_size": 224, "agent": HOSTILE})
    html = render(made.root, "How it was made")
    assert f"<td>selection</td><td>{small_root.VERSION}</td><td>0.1.0</td>" in html
    assert "&quot;image_size&quot;: 224" in html and "width / height &gt;= 1.2" in html and HOSTILE not in html
    assert "inputs: 1, of plans: 1" in html and "<td>part-0.parquet</td>" in html


def test_concepts_say_which_rule_balances_them(made: SmallRoot) -> None:
    for unit in UNITS:
        uids = sorted(uid for uid in made.images if made.units[uid] == unit)
        concepts = pa.array([("cat", HOSTILE, None)[number % 3] for number in range(len(uids))])
        made.root.publish_parquet(f"scores_concept_match/{unit}.parquet", pa.table({"uid": uids, "concept": concepts}))
    assert "No rule balances the concepts." in render(made.root, "Concepts")
    current = made.root.current("selection")
    assert current is not None
    rules = {"wide": "row_number() over (partition by concept order by uid) <= 3"}
    made.root.publish_current(
        "selection", current["fingerprint"], current["files"], {"rules": rules, "order": ["wide"], "quantiles": []}, {}
    )
    html = render(made.root, "Concepts")
    assert "The rule wide (row_number() over (partition by concept order by uid) &lt;= 3) limits the pictures" in html
    assert "reach wide" in html and "Pictures of a concept, by its rank" in html and HOSTILE not in html


def test_languages_and_captions_and_sizes_show_what_they_count(made: SmallRoot) -> None:
    for unit in UNITS:
        uids = sorted(uid for uid in made.images if made.units[uid] == unit)
        languages = pa.array([("en", HOSTILE)[number % 2] for number in range(len(uids))])
        made.root.publish_parquet(f"scores_language/{unit}.parquet", pa.table({"uid": uids, "language": languages}))
    assert "en: 16 pictures" in render(made.root, "Languages") and HOSTILE not in render(made.root, "Languages")
    without = sum(made.samples[uid]["caption"] is None for uid in made.images)
    assert f"{without} of 32 pictures have no caption" in render(made.root, "Captions")
    sizes = render(made.root, "Sizes")
    assert "32 to 45 high" in sizes and "num_bytes" in sizes
    hosts = render(made.root, "Hosts")
    assert "5 registered domains." in hosts and "host1.test" in hosts
