"""Shipped recipes say what was published: the table of the contrastive stage (arXiv 2303.15389, 2402.04252)."""

from __future__ import annotations

import pytest

from trainer import config, dry_run, models

M2B, LAION = "source in ('laion', 'coyo')", "source = 'laion'"
PUBLISHED = {
    # batch, rate of image and text, layer decay of both, patch drop, samples, precision, GPUs
    "eva02-b-16": (64 * 2048, 2e-4, 2e-5, 0.75, 0.75, 0.0, 8e9, "fp16", 64, M2B),
    "eva02-l-14": (128 * 1024, 4e-4, 4e-5, 0.85, 0.75, 0.0, 4e9, "fp16", 128, M2B),
    "eva02-l-14-336": (128 * 480, 4e-4, 4e-5, 0.75, 0.65, 0.0, 2e9, "fp16", 128, M2B),
    "eva02-e-14": (144 * 800, 4e-4, 4e-5, 0.9, 0.75, 0.5, 4e9, "fp16", 144, LAION),
    "eva02-e-14-plus": (144 * 1000, 4e-4, 4e-5, 0.9, 0.75, 0.5, 9e9, "bf16", 144, LAION),
    "eva01-g-14-plus": (112 * 1024, 4e-4, 4e-5, 0.85, 0.75, 0.5, 11e9, "fp16", 112, M2B),
    "eva-clip-8b": (384 * 464, 4e-4, 4e-5, 0.9, 0.75, 0.5, 9e9, "bf16", 384, M2B),
    "eva-clip-8b-448": (384 * 64, 2e-4, 2e-5, 0.85, 0.75, 0.0, 8e8, "bf16", 384, M2B),
    "eva-clip-18b-336": (360 * 64, 2e-4, 2e-5, 0.85, 0.75, 0.0, 4e8, "bf16", 360, M2B),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_numbers(name: str) -> None:
    batch, image_lr, text_lr, image_decay, text_decay, drop, samples, precision, num_gpus, where = PUBLISHED[name]
    recipe = config.load_config(name)
    assert recipe.train.batch_size == batch and recipe.train.num_micro_batches(num_gpus) == 1
    assert (recipe.optim.image.lr, recipe.optim.text.lr) == (image_lr, text_lr)
    assert (recipe.optim.image.layer_decay, recipe.optim.text.layer_decay) == (image_decay, text_decay)
    assert [(phase.patch_drop, phase.samples) for phase in recipe.phases] == [(drop, samples)]
    assert (recipe.train.precision, recipe.data.where, recipe.warmup_steps) == (precision, where, 2000)


def test_every_model_has_a_recipe_that_sizes_on_one_node() -> None:
    for name in models.names():
        recipe = config.load_config(name)
        assert recipe.model.name == name
        assert models.config(name).vision.image_size == dry_run.clip_config(recipe, recipe.phases[0]).vision.image_size
        # The paper's micro-batches, accumulated on a single node of 8 GPUs.
        assert f"{recipe.train.batch_size:,} = 8 GPUs" in dry_run.describe_run(recipe, 8)


def test_the_18b_recipe_has_three_phases_and_a_fixed_temperature() -> None:
    recipe = config.load_config("eva-clip-18b")
    assert [(phase.samples, phase.patch_drop) for phase in recipe.phases] == [(54e8, 0.5), (62e7, 0.0), (24e6, 0.5)]
    assert recipe.train.batch_size == 360 * 300 and recipe.zero.stage == 3 and recipe.model.grad_checkpointing
    optim = recipe.optim
    assert (optim.name, optim.betas, optim.eps) == ("lamb", (0.9, 0.95), 1e-6)
    assert (optim.image.weight_decay, optim.text.weight_decay, optim.final_lr_ratio) == (0.0, 0.0, 0.0)
    assert recipe.train.temperature == 0.01
    assert [(bool(phase.clips), phase.frames) for phase in recipe.phases] == [(False, 8), (False, 8), (True, 8)]
    assert len({phase.where for phase in recipe.phases}) == 3
    mix = recipe.phases[1].mix
    assert mix is not None and mix["laion-coco"] / sum(mix.values()) * recipe.phases[1].samples == pytest.approx(20e6)
    assert mix["laion"] == 4 * mix["coyo"] and recipe.phases[0].mix is recipe.phases[2].mix is None


def test_the_18b_goes_on_at_336_px() -> None:
    recipe = config.load_config("eva-clip-18b-336")
    assert (recipe.model.name, recipe.model.image_size) == ("eva-clip-18b", 336)
    assert "eva-clip-18b at 336 px" in dry_run.describe_run(recipe, 360)


def test_every_shipped_file_loads_and_names_its_source() -> None:
    files = sorted(config.SHIPPED.glob("*.toml"))
    assert len(files) >= 11
    for file in files:
        config.load_config(file)
        assert "debug" in file.stem or "arXiv" in file.read_text().partition("[model]")[0], file


def test_the_published_recipe_of_masked_image_modelling() -> None:
    recipe = config.load_config("mim-eva02-l-14")
    assert recipe.distill is not None and recipe.distill.teacher == "eva01-g-14"
    assert round(256 * recipe.distill.mask_share) == 105 and recipe.distill.crop_scale == (0.2, 1.0)
    assert (recipe.train.batch_size, recipe.train.num_micro_batches(64), recipe.model.drop_path) == (2048, 1, 0.1)
    optim = recipe.optim
    assert (optim.name, optim.betas, optim.eps, optim.clip_norm) == ("adamw", (0.9, 0.98), 1e-6, 3.0)
    assert (optim.image.lr, optim.image.weight_decay, optim.image.layer_decay) == (1.5e-3, 0.05, 1.0)
    assert optim.final_lr_ratio * optim.image.lr == pytest.approx(1e-5, rel=1e-3)
    assert sum(phase.samples for phase in recipe.phases) == 56 * optim.warmup_samples


@pytest.mark.parametrize(("name", "num_gpus"), [("8b", 384), ("18b", 360)])
def test_large_towers_learn_from_e_plus(name: str, num_gpus: int) -> None:
    recipe = config.load_config(f"mim-eva-clip-{name}")
    assert recipe.distill is not None and recipe.distill.teacher == "eva02-e-14-plus"
    assert sum(phase.samples for phase in recipe.phases) == 6e9 and recipe.zero.stage == 3
    assert recipe.train.num_micro_batches(num_gpus) == 1
    text = dry_run.describe_run(recipe, num_gpus, "H200")
    assert "teacher         eva02-e-14-plus, frozen, sharded over the GPUs" in text
