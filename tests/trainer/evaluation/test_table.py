"""The table of results: the published means, columns and means of what was measured."""

from __future__ import annotations

import math

from trainer import evaluate
from trainer.evaluation import table


def test_the_published_means_are_those_of_the_table() -> None:
    """80.7 and 79.4 over the 27 sets, as the paper's abstract and table 2 say."""
    assert len(table.PUBLISHED) == 27
    means = [table.mean(column) for column in table.published_columns().values()]
    assert [round(mean, 1) for mean in means if mean is not None] == [80.7, 79.4]
    found = table.robustness(table.published_columns()["paper 18B"])
    assert found is not None
    assert math.isclose(found[0], (83.8 + 77.9 + 87.3 + 95.7 + 74.7 + 82.2) / 6) and math.isclose(
        found[1], 83.8 - found[0]
    )


def results(**accuracies: tuple[float, float]) -> evaluate.Results:
    """Set → accuracies of crop and squash."""
    return {
        name.replace("_", "-"): {"crop": {"accuracy": crop}, "squash": {"accuracy": squash}}
        for name, (crop, squash) in accuracies.items()
    }


def test_the_better_of_both_has_its_own_column_and_no_other() -> None:
    columns = table.tabulate_accuracies(results(ObjectNet=(0.822, 0.762), VOC2007=(0.824, 0.858)))
    assert {name: list(map(round, column.values())) for name, column in columns.items()} == {
        "crop": [82, 82], "squash": [76, 86], "best of both": [82, 86],
    }  # fmt: skip
    one_way = results(ObjectNet=(0.822, 0.762), VOC2007=(0.824, 0.858))
    del one_way["VOC2007"]["squash"]
    assert "best of both" not in table.tabulate_accuracies(one_way)


def test_means_are_over_the_measured_sets_and_say_so() -> None:
    text = table.format_results(results(IN_1K=(0.8, 0.7), STL10=(0.9, 0.9), my_set=(0.1, 0.1)))
    rows = {line[:31].strip(): line[31:].split() for line in text.splitlines()}
    assert rows["mean of these 2 of 27"] == ["85.0", "80.0", "85.0", "91.7", "91.4"]
    assert rows["my-set"] == ["10.0", "10.0", "10.0", "-", "-"]
    assert not any("robustness" in row for row in rows)
    six = {name.replace("-", "_"): (0.5, 0.6) for name in table.ROBUSTNESS}
    text = table.format_results(results(**six))
    assert "robustness" in text and "mean of these 6 of 27" in text


def test_half_the_width_of_an_interval_stands_beside_its_measure() -> None:
    measures = {"accuracy": 0.5, "accuracy_low": 0.48, "accuracy_high": 0.53, "mean_average_precision": 0.25}
    recall = {"image_to_text_recall@1": 0.4, "image_to_text_recall@1_low": 0.3, "image_to_text_recall@1_high": 0.5}
    text = table.format_results({"VOC2007": {"crop": measures}, "pairs": {"crop": recall}})
    assert "50.0 ±2.5" in text and "40.0 ±10.0" in text
    assert text.split("mean average precision in per cent")[1].split()[:3] == ["resize", "VOC2007", "crop"]
