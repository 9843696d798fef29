"""The dry run: figures equal the arithmetic of the papers, and what does not fit is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from curation.errors import UserError
from trainer import config, dry_run, metrics, sizes


def test_18b_takes_what_the_arithmetic_says() -> None:
    recipe = config.load_config("eva-clip-18b")
    text = dry_run.describe_run(recipe, 360, "H200")
    assert "18,325,482,241" in text and "293.2 GB" in text
    assert "image 9.12 TFLOP, 4.56 TFLOP at 50% patch drop" in text
    sharded = dry_run.estimate_memory(recipe, 360, 3)
    assert (sharded.weights + sharded.gradients + sharded.optimizer) / 1e9 == pytest.approx(0.81, abs=0.01)
    whole = dry_run.estimate_memory(recipe, 360, 0)
    assert (whole.weights + whole.gradients + whole.optimizer) / 1e9 == pytest.approx(293.2, abs=0.1)


def test_each_stage_shards_one_thing_more() -> None:
    recipe = config.load_config("eva02-l-14")
    stages = [dry_run.estimate_memory(recipe, 128, stage) for stage in range(4)]
    assert [s.optimizer < stages[0].optimizer for s in stages] == [False, True, True, True]
    assert [s.gradients < stages[0].gradients for s in stages] == [False, False, True, True]
    assert [s.weights < stages[0].weights for s in stages] == [False, False, False, True]
    assert stages[1].optimizer == pytest.approx(stages[0].optimizer / 128)


def test_the_total_is_the_higher_of_activations_and_update() -> None:
    """An optimizer's step begins when the activations are gone; sharded it is in parts."""
    recipe = config.load_config("eva02-l-14", ["train.batch_size=8", "train.micro_batch_size=1"])
    for stage in range(4):
        memory = dry_run.estimate_memory(recipe, 8, stage)
        kept = memory.weights + memory.gradients + memory.optimizer + memory.buffers
        assert memory.total == kept + max(memory.activations, memory.update)
    lone, sharded = (dry_run.estimate_memory(recipe, 1, stage).update for stage in (0, 1))
    assert lone > dry_run.estimate_memory(recipe, 1, 0).activations
    assert lone / sharded == pytest.approx(dry_run.num_parameters(recipe) / sizes.ELEMENTS_AT_ONCE)


def test_a_phase_of_clips_has_micro_batches_of_its_own() -> None:
    """EVA-CLIP-18B's last phase: eight frames of each clip would take eight times the memory of pictures."""
    recipe = config.load_config("eva-clip-18b")
    assert dry_run.fits(recipe, 360, "H200")
    alike = config.load_config("eva-clip-18b", ["phases.2.micro_batch_size=300"])
    assert not dry_run.fits(alike, 360, "H200")
    text = dry_run.describe_run(alike, 360, "H200")
    assert "train.micro_batch_size=" in text and "without micro_batch_size in [[phases]] would" in text
    assert "in other phases 360 GPUs × 5 micro-batches × 60" in dry_run.describe_run(recipe, 360, "H200")


def test_offload_moves_the_optimizer_to_the_host() -> None:
    recipe = config.load_config("eva02-l-14", ["zero.offload_optimizer=true"])
    memory = dry_run.estimate_memory(recipe, 8, 2)
    assert memory.optimizer == 0 and memory.host > 0
    assert "host memory" in dry_run.describe_run(recipe, 8)


def test_speed_and_days_follow_from_flops_and_the_utilisation_that_is_named() -> None:
    measured, assumed = config.load_config("eva02-l-14"), config.load_config("eva-clip-18b")
    for recipe, mfu in ((measured, 0.75 * 0.106), (assumed, 0.4)):
        phase = recipe.phases[0]
        rate = dry_run.samples_per_s(recipe, phase, 8, "H100")
        assert rate * dry_run.train_flops(recipe, phase) == pytest.approx(8 * 989e12 * mfu)
        assert dry_run.samples_per_s(recipe, phase, 16, "H100") == pytest.approx(2 * rate)
    assert "measured on one GPU at commit" in dry_run.describe_run(measured, 8)
    assert "40% MFU" in (text := dry_run.describe_run(assumed, 8)) and "assumed" in text


def test_what_does_not_fit_is_told_with_the_micro_batch_that_would() -> None:
    recipe = config.load_config("eva02-l-14")
    assert "does not fit" in (text := dry_run.describe_run(recipe, 8, "V100"))
    micro = dry_run.find_micro_batch(recipe, 8, "V100")
    assert micro is not None and f"train.micro_batch_size={micro} would" in text
    smaller = config.load_config("eva02-l-14", [f"train.micro_batch_size={micro}"])
    assert "\nfits " in dry_run.describe_run(smaller, 8, "V100")
    larger = config.load_config("eva02-l-14", [f"train.micro_batch_size={2 * micro}"])
    assert not dry_run.fits(larger, 8, "V100")


def test_a_model_too_large_for_any_batch_is_told() -> None:
    text = dry_run.describe_run(config.load_config("eva-clip-18b", ["zero.stage=0"]), 8)
    assert "does not fit" in text and "whatever the batch" in text


def test_every_gpu_has_a_memory_and_an_average_takes_some() -> None:
    assert dry_run.MEMORY_GB.keys() == metrics.DENSE_BF16_TFLOPS.keys()
    plain, averaged = (config.load_config("eva02-l-14", [f"train.ema_decay={decay}"]) for decay in (0.0, 0.999))
    more = dry_run.estimate_memory(averaged, 8, 1).optimizer - dry_run.estimate_memory(plain, 8, 1).optimizer
    assert more == pytest.approx(4 * dry_run.num_parameters(plain) / 8)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="does not divide"):
        dry_run.describe_run(config.load_config("eva-clip-18b"), 7)


def test_a_dry_run_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['deepspeed'] = None\n"
        "from trainer.train import main; sys.exit(main(['--config', 'eva-clip-18b', '--dry-run', '--num-gpus', '360']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "360 × H100" in done.stdout
