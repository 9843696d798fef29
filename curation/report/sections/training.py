"""Curves of trainings: loss, learning rate and speed by step, and what evaluations on the way measured."""

from __future__ import annotations

from html import escape

from curation.report.facts import Facts
from curation.report.line_charts import MAX_POINTS, Curve, draw_curves, thin
from curation.report.section import Section
from curation.report.tables import fold_table, render_table, say
from curation.report.trainings import Training, find_trainings

CHARTS = {
    "loss": "loss",
    "lr": "learning rate",
    "samples_per_s": "samples a second",
    "grad_norm": "norm of the gradient",
}


def render(facts: Facts) -> str:
    """A part for each run whose metrics.jsonl lies under the root, or is named by `--run`."""
    found = find_trainings(facts.root, facts.runs)
    if not found:
        return say(
            "No run of a training lies under the root. Name one that is elsewhere: `curate report ROOT --run FOLDER`."
        )
    return "".join(map(_render_training, found))


def _render_training(training: Training) -> str:
    title = f"<h3>{escape(training.name)}</h3>"
    if not training.steps:
        return title + say("No step is recorded yet.")
    facts = say(
        f"{training.last_step:,} steps, {training.num_samples:,} samples, {training.hours:.3g} hours"
        + (f"; {training.num_skipped:,} steps were skipped." if training.num_skipped else ".")
    )
    curves = [(CHARTS[name], training.steps[name]) for name in CHARTS if training.steps.get(name)]
    curves += list(training.measured.items())
    figures = "".join(_render_curve(name, points) for name, points in curves)
    last = [(name, points[-1][1]) for name, points in training.measured.items()]
    table = render_table(("measured", "at last"), last) if last else say("No evaluation on the way is recorded.")
    return f'{title}{facts}<div class="charts">{figures}</div>{table}'


def _render_curve(name: str, points: list[tuple[float, float]]) -> str:
    chart = draw_curves(f"{name} by step", [Curve(name=name, points=points)], "step", name)
    rows = [(round(step), value) for step, value in thin(points)]
    head = ("step", name if len(points) <= MAX_POINTS else f"{name}, mean")
    return f"<figure><figcaption>{escape(name)}</figcaption>{chart}{fold_table(head, rows)}</figure>"


SECTION = Section(title="Training", place=100, render=render)
