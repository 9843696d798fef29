"""Each setting of the recipe says whether it decides content; what stages record of them stays as it was."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass

import pytest

from curation.recipe.config import (
    DedupeConfig,
    DownloadConfig,
    EmbedConfig,
    PackConfig,
    Recipe,
    ScoresConfig,
    SourceConfig,
)
from curation.recipe.select_config import BlocklistConfig, MixConfig, SelectConfig
from curation.settings import check_ranges, content_settings, setting

SECTIONS = (
    SourceConfig, DownloadConfig, EmbedConfig, DedupeConfig, ScoresConfig, BlocklistConfig, SelectConfig, PackConfig
)  # fmt: skip


def silent(section: type) -> list[str]:
    """Settings of `section` that do not say whether they decide content; sections inside it say so themselves."""
    hints = typing.get_type_hints(section)
    return [
        field.name
        for field in dataclasses.fields(section)  # type: ignore[arg-type]  # sections are dataclasses
        if not isinstance(field.metadata.get("content"), bool) and not set(SECTIONS) & set(types_in(hints[field.name]))
    ]


def types_in(hint: object) -> list[object]:
    return [hint, *(found for argument in typing.get_args(hint) for found in types_in(argument))]


@pytest.mark.parametrize("section", [*SECTIONS, MixConfig, Recipe])
def test_every_setting_says_whether_it_decides_content(section: type) -> None:
    assert silent(section) == []


def test_a_setting_that_does_not_say_so_is_found() -> None:
    @dataclass(frozen=True)
    class Section:
        size: int = setting(3, content=True)
        speed: int = 4

    assert silent(Section) == ["speed"]


def test_every_section_of_the_recipe_is_asked() -> None:
    hints = typing.get_type_hints(Recipe)
    nested = {found for hint in hints.values() for found in types_in(hint) if dataclasses.is_dataclass(found)}
    assert nested == set(SECTIONS)


def test_what_a_download_records_is_what_roots_already_hold() -> None:
    assert list(content_settings(DownloadConfig())) == [
        "engine", "image_size", "resize_mode", "only_if_bigger", "encode_format", "encode_quality", "max_bytes",
        "max_pixels", "max_frames", "formats", "obey_robots", "measure",
    ]  # fmt: skip


@pytest.mark.parametrize("section", [DedupeConfig(), PackConfig()])
def test_what_names_a_version_is_every_setting_of_its_section(section: DedupeConfig | PackConfig) -> None:
    assert list(content_settings(section)) == [field.name for field in dataclasses.fields(section)]


def test_a_setting_outside_its_range_is_refused() -> None:
    @dataclass(frozen=True)
    class Section:
        share: float | None = setting(0.5, content=True, between=(0.0, 1.0))

    for value in (0.0, 1.0, None):
        check_ranges(Section(value))
    for value in (-0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="share must lie in 0.0..1.0"):
            check_ranges(Section(value))


def test_sections_do_not_share_a_dict() -> None:
    one, other = PackConfig(), PackConfig()
    assert one.captions == other.captions == {"caption": 1.0} and one.captions is not other.captions
