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
