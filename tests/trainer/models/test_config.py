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


def test_a_name_may_say_other_sizes_of_the_image_tower() -> None:
    named = models.config("eva02-l-14:depth=6,width=512,heads=4").vision
    assert (named.layers, named.width, named.heads, named.head_width) == (6, 512, 4, 128)
    assert named.hidden_width == round(2730 / 2)
    assert models.config("eva02-l-14:width=512").vision.head_width == 64
    assert models.config("eva02-l-14:depth=24,width=1024,heads=16") == models.config("eva02-l-14")
    assert models.build("debug:depth=1,width=64").visual.blocks[0].mlp.w3.weight.shape == (64, 171)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("debug:x=3", "are spelled NAME:depth"),
        ("debug:width=64,depth=2", "in this order"),
        ("debug:depth=2,", "are spelled"),
        ("debug:depth=2.5", "are spelled"),
        ("debug:heads=7", "does not divide into 7 heads"),
        ("debug:heads=0", "does not divide into 0 heads"),
        ("debug:width=65", "multiple of head_width"),
        ("debug:depth=0", "layers lies in"),
        ("toy:depth=2", "There is no model 'toy'"),
    ],
)
def test_sizes_that_cannot_be_are_one_sentence(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        models.config(name)
    assert "\n" not in str(caught.value)
