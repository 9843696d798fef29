"""The numbers of a model: what may be overridden, and what is refused."""

from typing import Any

import pytest

from curation.errors import UserError
from trainer import models


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "eva-clip-80b"}, "eva-clip-18b"),
        ({"name": "debug", "wdith": 3}, "embed_dim"),
        ({"name": "debug", "vision": {"depth": 3}}, "layers"),
        ({"name": "debug", "image_size": 65}, "multiple"),
        ({"name": "debug", "vision": {"patch_drop": 1.0}}, "patch_drop"),
        ({"name": "debug", "vision": {"head_width": 6, "width": 96}}, "multiple"),
        ({"name": "debug", "vision": {"norm": "batch"}}, "rms"),
    ],
)
def test_wrong_use_is_one_sentence_that_names_the_choices(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        models.build(**arguments)
    assert "\n" not in str(caught.value)


def test_an_override_changes_what_it_names_and_nothing_else() -> None:
    config = models.config("eva02-b-16")
    changed = config.override(image_size=448, embed_dim=64, vision={"layers": 2}, text={"width": 64, "heads": 2})
    assert (changed.vision.image_size, changed.vision.layers, changed.embed_dim, changed.text.width) == (448, 2, 64, 64)
    assert (
        changed.override(image_size=224, embed_dim=512, vision={"layers": 12}, text={"width": 512, "heads": 8})
        == config
    )
    assert config.override() == config


def test_sizes_follow_from_the_numbers() -> None:
    vision = models.config("eva-clip-18b").vision
    assert (vision.grid, vision.num_patches, vision.heads) == (16, 256, 40)
    assert models.config("debug").text.hidden_width == 4 * models.config("debug").text.width
