import pytest

from curation.duplicates.keep import order_sql
from curation.errors import UserError


def test_uid_decides_what_the_rule_leaves_open() -> None:
    terms = order_sql(["resolution desc", "punsafe"])
    assert len(terms) == 3
    assert terms[-1].startswith("uid asc")
    assert all(term.endswith("nulls last") for term in terms)


@pytest.mark.parametrize("entry", ["sharpness desc", "resolution down", "uid; drop table x"])
def test_unknown_entries_are_refused(entry: str) -> None:
    with pytest.raises(UserError, match="dedupe.keep"):
        order_sql([entry])
