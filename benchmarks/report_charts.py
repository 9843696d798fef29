"""The report's charts beside two libraries: bytes of a page of 30 histograms, and what a browser takes to show it.

    npm install uplot vega vega-lite
    python -m benchmarks.report_charts node_modules

Each page holds the same numbers and what it needs to draw them. Times are those of a headless Chromium from the begin
of the navigation until the last chart is drawn, and its page's processor time (`TaskDuration`): medians of 5 loads.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from curation.report.bar_charts import draw_distribution, render_distribution
from curation.report.histograms import Bins, Cut, Distribution
from tests.support.chromium import Browser, open_browser

NUM_CHARTS, NUM_BINS, NUM_LOADS = 30, 32, 5
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
DRAWN = f"{LOADED} && (document.scripts.length ? window.drawn && Math.max(window.drawn, {LOADED}) : {LOADED})"
UPLOT = """
const bars = uPlot.paths.bars({size: [1]});
for (const [name, xs, all, kept] of charts) new uPlot({width: 330, height: 170, title: name, scales: {x: {time: false}},
  axes: [{label: name}, {label: "pictures"}], series: [{}, {label: "all", paths: bars, fill: "#b9c3d3"},
  {label: "kept", paths: bars, fill: "#1f6f5c"}]}, [xs, all, kept], document.body);
requestAnimationFrame(() => setTimeout(() => window.drawn = performance.now()));
"""
VEGA = """
const views = charts.map(([name, xs, all, kept]) => {
  const values = xs.flatMap((x, i) => [{x, n: all[i], of: "all"}, {x, n: kept[i], of: "kept"}]);
  const spec = vegaLite.compile({width: 280, height: 120, data: {values}, mark: {type: "bar", tooltip: true},
    encoding: {x: {field: "x", type: "quantitative", title: name, bin: {binned: true, step: 1}},
    y: {field: "n", type: "quantitative", stack: null, title: "pictures"}, color: {field: "of"}}}).spec;
  const place = document.body.appendChild(document.createElement("div"));
  return new vega.View(vega.parse(spec), {renderer: "svg"}).initialize(place).runAsync();
});
Promise.all(views).then(() => window.drawn = performance.now());
"""


def draw_numbers() -> list[Distribution]:
    """NUM_CHARTS distributions by chance, the same in every run."""
    chance, charts = random.Random(0), []
    for number in range(NUM_CHARTS):
        counts = tuple(chance.randrange(1_000, 1_000_000) for _ in range(NUM_BINS))
        kept = tuple(int(count * chance.random()) for count in counts)
        bins = Bins(0.0, 1.0, NUM_BINS)
        cuts = (Cut("rule", ">=", 7.0, sum(counts[7:])),)
        charts.append(Distribution(f"column_{number}", bins.labels, counts, kept, 0, bins, cuts))
    return charts


def write_pages(modules: Path) -> Iterator[tuple[str, str]]:
    """(name, HTML) of each way to draw the charts; `modules` is npm's folder."""
    charts = draw_numbers()
    data = json.dumps([[c.column, [*range(NUM_BINS)], c.counts, c.kept] for c in charts], separators=(",", ":"))
    yield "SVG", "".join(map(draw_distribution, charts))
    yield "SVG with tables", "".join(map(render_distribution, charts))
    uplot, style = (modules / f"uplot/dist/uPlot.{kind}" for kind in ("iife.min.js", "min.css"))
    yield "uPlot", f"<style>{style.read_text()}</style>{_script(uplot.read_text(), data, UPLOT)}"
    vega = "".join((modules / f"{name}/build/{name}.min.js").read_text() for name in ("vega",))
    lite = (modules / "vega-lite/build/vega-lite.min.js").read_text()
    yield "Vega-Lite", _script(f"{vega}\n{lite}", data, VEGA)


def _script(library: str, data: str, code: str) -> str:
    safe = library.replace("</script", "<\\/script")
    return f"<script>{safe}</script><script>const charts = {data};{code}</script>"


def measure(browser: Browser, file: Path) -> tuple[float, float]:
    """Seconds until the page is drawn, and of the processor."""
    browser.open("about:blank")
    before = _task_seconds(browser)
    browser.open(file.as_uri())
    browser.wait(DRAWN)
    return browser.ask(DRAWN) / 1e3, _task_seconds(browser) - before


def _task_seconds(browser: Browser) -> float:
    metrics = browser.send("Performance.getMetrics")["metrics"]
    return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", type=Path, help="npm's folder node_modules")
    modules = parser.parse_args().modules
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        browser.resize(1280, 800)
        browser.send("Performance.enable")
        for name, html in write_pages(modules):
            file = Path(folder) / f"{name}.html"
            file.write_text(f'<!doctype html><meta charset="utf-8"><body>{html}</body>')
            found = [measure(browser, file) for _ in range(NUM_LOADS)]
            wall, cpu = (statistics.median(each[i] for each in found) for i in (0, 1))
            sys.stdout.write(f"| {name} | {file.stat().st_size:,} | {1e3 * wall:.0f} ms | {1e3 * cpu:.0f} ms |\n")


if __name__ == "__main__":
    main()
