"""The cluster's file: what it must give, what it may give, and the sentence for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.costs.cluster import load_cluster
from curation.errors import UserError
from curation.recipe.config import SHIPPED
from tests.support.cluster_file import CLUSTER


def write(folder: Path, text: str) -> Path:
    """The file of a cluster."""
    file = folder / "cluster.toml"
    file.write_text(text)
    return file


def test_what_the_file_gives_is_called_given_and_the_rest_has_a_source(tmp_path: Path) -> None:
    cluster = load_cluster(write(tmp_path, CLUSTER + "[assume]\ncame = 0.6\n"))
    sources = cluster.assume.sources()
    assert sources.pop("came") == (0.6, "given")
    assert all(source and source != "given" for _, source in sources.values())
    assert cluster.machines.bytes_per_s == 10 * 12.5e9 / 8 and cluster.gpus is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("nodes = 10\n", ""), "lacks nodes"),
        (("nodes = 10", "nodes = 0"), "nodes must lie in"),
        (("price_per_hour = 0.68", "price_per_hour = -1"), "price_per_hour must lie in"),
        (("price_per_hour = 0.68", "price_per_hour = nan"), "price_per_hour must lie in"),
        (("price_per_hour = 0.68", 'price_per_hour = "free"'), "must be of type float"),
        (("months = 3", "month = 3"), "did you mean months"),
        (("[storage]", "[store]"), "did you mean storage"),
        (("months = 3", "months = 3\n[assume]\ncame = 75"), "came must lie in 0.0..1.0"),
        (("months = 3", 'months = 3\n[training]\nconfig = "debug"'), "[training] needs [gpus]"),
        (("[machines]", "[machines"), "not readable TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        load_cluster(write(tmp_path, CLUSTER.replace(*change)))
    assert said in str(refused.value) and "\n" not in str(refused.value).split("(at line")[0]


def test_a_file_that_is_not_there_or_is_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        load_cluster(tmp_path / "none.toml")
    with pytest.raises(UserError, match="Unknown key"):
        load_cluster(SHIPPED / "laion-2b-en.toml")
