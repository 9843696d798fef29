"""Our own words: every set of the table has them, in as many classes as it has."""

from __future__ import annotations

from trainer.evaluation import paper_sets, prompts, table


def test_every_set_of_the_table_has_classes_and_templates() -> None:
    assert list(paper_sets.SETS) == list(table.PUBLISHED) and prompts.TEMPLATES.keys() == table.PUBLISHED.keys()
    assert all("{}" in template for templates in prompts.TEMPLATES.values() for template in templates)
    for name, names in prompts.NAMES.items():
        assert len(names) in paper_sets.SETS[name].num_classes
