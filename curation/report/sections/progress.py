"""How fast the download was and how it failed, over time, from the logs of units in ROOT/logs/download."""

from __future__ import annotations

import time

from curation.report.axes import shorten
from curation.report.download_times import Times, read_times
from curation.report.facts import Facts
from curation.report.line_charts import Curve, draw_curves, render_legend
from curation.report.section import Section
from curation.report.tables import divide, fold_table, say

NUM_REASONS = 7


def render(facts: Facts) -> str:
    """Rows a second, pictures a second, and failed rows a second by their most frequent reasons."""
    times = read_times(facts.root)
    if times is None:
        return say("There are no logs of a download under ROOT/logs, so nothing is known of its speed.")
    rows = Curve(name="rows", points=_rate(times, None))
    came = Curve(name="pictures", points=_rate(times, {"ok"}))
    totals = times.totals
    reasons = sorted(totals.keys() - {"ok"}, key=lambda status: (-totals[status], status))[:NUM_REASONS]
    failed = [Curve(name=reason, points=_rate(times, {reason})) for reason in reasons]
    charts = _figure("Rows a second", [rows, came], times) + (
        _figure("Failed rows a second, by reason", failed, times) if failed else ""
    )
    return say(_describe(times)) + f'<div class="charts wide">{charts}</div>'


def _describe(times: Times) -> str:
    seconds, rows, came = times.width * len(times.statuses), sum(times.totals.values()), times.totals.get("ok", 0)
    part = f" One of {times.every:,} logs was read, and stands for the others." if times.every > 1 else ""
    return (
        f"{rows:,} rows ended in {_format_seconds(seconds)}, from {_format_time(times.start)} UTC, "
        f"{rows / seconds:,.1f} a second on average; {100 * divide(came, rows):.1f} % came. "
        f"Each unit is taken to have been equally fast from its begin to its end.{part}"
    )


def _rate(times: Times, statuses: set[str] | None) -> list[tuple[float, float]]:
    """(middle of a time, rows a second) of `statuses`, None being all."""
    return [
        (
            times.start + (i + 0.5) * times.width,
            sum(n for status, n in counts.items() if statuses is None or status in statuses) / times.width,
        )
        for i, counts in enumerate(times.statuses)
    ]


def _figure(title: str, curves: list[Curve], times: Times) -> str:
    names = [curve.name for curve in curves]
    chart = draw_curves(title, curves, "time, UTC", "a second", format_x=_format_time, from_zero=True)
    rows = [
        (_format_time(curves[0].points[i][0]), *(round(curve.points[i][1], 3) for curve in curves))
        for i in range(len(times.statuses))
    ]
    table = fold_table(("time, UTC", *names), rows)
    return f"<figure><figcaption>{title}</figcaption>{render_legend(names)}{chart}{table}</figure>"


def _format_time(seconds: float) -> str:
    return time.strftime("%d %b %H:%M:%S", time.gmtime(seconds))


def _format_seconds(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 7200 else f"{shorten(seconds)} s"


SECTION = Section(title="Download over time", place=70, render=render)
