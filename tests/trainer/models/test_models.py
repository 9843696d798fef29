"""The model family: exact sizes, the whole equal to open_clip's, and what training needs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.small_models import debug_model, pixels
from tests.support.trainer.torchvision_stub import oracle
from tests.support.trainer.tower_styles import randomise, shrunk
from trainer import models, weights
from trainer.data import tokenizer
from trainer.models import flops
from trainer.models.clip import Clip
from trainer.models.mim import MaskedImageModel
from trainer.models.position import resize_position_embedding
from trainer.models.rope import rotate, rotation_table

NUM_PARAMETERS = {
    "eva01-g-14": 1_136_435_841,
    "eva01-g-14-plus": 1_366_621_569,
    "eva02-b-16": 149_691_137,
    "eva02-l-14": 427_755_457,
    "eva02-l-14-336": 428_083_137,
    "eva02-e-14": 4_704_589_569,
    "eva02-e-14-plus": 5_044_889_089,
    "eva-clip-8b": 8_220_748_545,
    "eva-clip-8b-448": 8_223_894_273,
    "eva-clip-18b": 18_325_482_241,
}


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_parameter_count_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        model = models.build(name)
    parameters = list(model.parameters())
    assert all(parameter.is_meta for parameter in parameters) and not list(model.buffers())
    assert sum(parameter.numel() for parameter in parameters) == NUM_PARAMETERS[name]


def test_names_are_the_files_in_configs() -> None:
    assert set(models.names()) == {*NUM_PARAMETERS, "debug", "filter-small"}


def test_sizing_a_model_imports_no_torch() -> None:
    code = (
        "import sys, trainer, trainer.models, trainer.models.flops as flops; "
        "flops.step_flops(trainer.models.config('eva-clip-18b')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_whole_eva02_b_16_equals_open_clip() -> None:
    open_clip = oracle("open_clip")
    ours = models.build("eva02-b-16").eval()
    theirs = open_clip.create_model("EVA02-B-16", load_weights=False).eval()
    assert sum(parameter.numel() for parameter in theirs.parameters()) == NUM_PARAMETERS["eva02-b-16"]
    theirs.load_state_dict(weights.export_state(ours.state_dict(), ours.config, "open_clip"), strict=True)
    images, tokens = pixels(ours), tokenizer.tokenize(["a dog on the beach", "ein rotes Fahrrad"])
    with torch.no_grad():
        image, text, scale = ours(images, tokens)
        expected_image, expected_text = theirs.encode_image(images), theirs.encode_text(tokens)
    for found, expected in ((image, expected_image), (text, expected_text)):
        assert (F.normalize(found, dim=-1) - F.normalize(expected, dim=-1)).abs().max() < 1e-6
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scale.squeeze(), theirs.logit_scale.exp())


def test_rotation_is_the_same_when_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eagerly a rotation is a product of complex numbers; the compiler is given real ones."""
    x = torch.randn(2, 17, 2, 3, 32, dtype=torch.float64)
    table = rotation_table(4, 32, 4)
    expected = rotate(x, table)
    torch.testing.assert_close(expected.norm(dim=-1), x.norm(dim=-1))
    still, turned = slice(0, 2), slice(2, None)  # CLS and the corner patch, whose row and column are 0
    assert torch.equal(expected[:, still], x[:, still])
    assert not torch.isclose(expected[:, turned], x[:, turned]).all(dim=-1).any()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotate(x, table), expected)


def test_a_whole_model_is_one_graph() -> None:
    model = debug_model()
    images, tokens = pixels(model), tokenizer.tokenize(["a dog", "a cat"])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, tokens), model(images, tokens), atol=1e-6, rtol=1e-5)


def test_features_are_not_normalised_and_temperature_has_one_axis() -> None:
    model = debug_model()
    image, text, scale = model(pixels(model), tokenizer.tokenize(["a", "b"]))
    assert image.shape == text.shape == (2, 32)
    assert (image.norm(dim=-1) - 1).abs().min() > 0.1 and (text.norm(dim=-1) - 1).abs().min() > 0.1
    assert model.logit_scale.shape == scale.shape == (1,)
    torch.testing.assert_close(models.build("debug").logit_scale.exp().item(), 1 / 0.07)


def test_text_reads_nothing_after_the_end() -> None:
    model = debug_model().eval()
    tokens = tokenizer.tokenize(["a dog", "a much longer caption about a dog and a cat"])
    noisy = tokens.clone()
    noisy[0, 10:] = 1234
    expected = model.encode_text(tokens)
    torch.testing.assert_close(model.encode_text(noisy), expected)
    torch.testing.assert_close(model.encode_text(tokenizer.trim(tokens)), expected, atol=1e-6, rtol=1e-5)
    noisy[0, 1] = 1234
    assert (model.encode_text(noisy)[0] - expected[0]).abs().max() > 1e-3


def test_position_embedding_resizes_as_timm_does_without_its_low_pass_filter() -> None:
    embedding = torch.randn(1, 257, 8)
    assert resize_position_embedding(embedding, 256) is embedding
    resample = oracle("timm").layers.resample_abs_pos_embed
    for side in (12, 24):
        theirs = resample(embedding, [side, side], [16, 16], antialias=False)
        torch.testing.assert_close(resize_position_embedding(embedding, side * side), theirs)
        assert resize_position_embedding(embedding.bfloat16(), side * side).dtype == torch.bfloat16


def test_layer_groups_follow_depth() -> None:
    with torch.device("meta"):
        model = models.build("eva02-l-14")
    groups = model.layer_groups()
    assert set(groups) == {name for name, _ in model.named_parameters()}
    depths = {name: (group.tower, group.depth, group.max_depth, group.decay) for name, group in groups.items()}
    assert depths["visual.patch_embed.weight"] == ("visual", 0, 25, True)
    assert depths["visual.pos_embed"] == ("visual", 0, 25, False)
    assert depths["visual.blocks.0.attn.qkv.weight"] == ("visual", 1, 25, True)
    assert depths["visual.blocks.23.mlp.norm.weight"] == ("visual", 24, 25, False)
    assert depths["visual.head.weight"] == ("visual", 25, 25, True)
    assert depths["text.token_embedding.weight"] == ("text", 0, 13, True)
    assert depths["text.positional_embedding"] == ("text", 0, 13, False)
    assert depths["text.blocks.11.attn.qkv.bias"] == ("text", 12, 13, False)
    assert depths["text.norm.bias"] == ("text", 13, 13, False)
    assert depths["logit_scale"] == ("", 0, 0, False)


def test_flops_of_the_18b_model_are_the_published_ones() -> None:
    config = models.config("eva-clip-18b")
    assert round(flops.image_flops(config, published=True) / 1e12, 2) == 9.12
    assert round(flops.image_flops(config, patch_drop=0.5, published=True) / 1e12, 2) == 4.56
    assert 0.98 < flops.image_flops(config) / flops.image_flops(config, published=True) < 0.99


@pytest.mark.parametrize("name", ["debug", "eva02-b-16", "eva-clip-18b"])
@pytest.mark.parametrize("patch_drop", [0.0, 0.5])
def test_flops_equal_those_that_torch_counts(name: str, patch_drop: float) -> None:
    config = models.config("debug") if name == "debug" else shrunk(name)
    with torch.device("meta"):
        model = Clip(config)
        model.set_patch_drop(patch_drop)
        side = config.vision.image_size
        with FlopCounterMode(display=False) as image:
            model.encode_image(torch.empty(2, 3, side, side))
        with FlopCounterMode(display=False) as whole:
            model.encode_patches(torch.empty(2, 3, side, side))
        with FlopCounterMode(display=False) as text:
            model.encode_text(torch.zeros(2, 40, dtype=torch.int64))
    assert image.get_total_flops() == 2 * flops.image_flops(config, patch_drop)
    heads = 2 * config.vision.width * config.embed_dim * int(config.vision.num_patches * (1 - patch_drop) - 1)
    assert whole.get_total_flops() == 2 * (flops.image_flops(config, patch_drop, published=True) + heads)
    assert text.get_total_flops() == 2 * flops.text_flops(config, num_tokens=40)


def test_masked_image_model_sees_nothing_of_hidden_patches() -> None:
    student = MaskedImageModel(models.config("debug"), teacher_dim=24)
    randomise(student)
    images = pixels(student)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, [1, 5]] = True
    mask[1, [0, 2, 15]] = True
    expected = student(images, mask)
    assert expected.shape == (5, 24)
    hidden = images.clone()
    hidden[0, :, 0:16, 16:32] += 1  # patch 1 of image 0
    assert torch.equal(student(hidden, mask), expected)
    seen = images.clone()
    seen[1, :, 16:32, 0:16] += 1  # patch 4 of image 1
    moved = (student(seen, mask) - expected).abs().amax(dim=1) > 1e-6
    assert moved.tolist() == [False, False, True, True, True]


def test_masked_image_model_places_its_own_parts() -> None:
    student = MaskedImageModel(models.config("debug"), teacher_dim=24)
    groups = student.layer_groups()
    assert (groups["mask_token"].tower, groups["mask_token"].decay) == ("", False)
    assert (groups["visual.blocks.2.norm1.weight"].depth, groups["visual.norm.weight"].depth) == (3, 4)


def test_model_is_sharded_from_birth_with_the_same_initial_values() -> None:
    pytest.importorskip("deepspeed")
    run_ranks(2, "tests.support.trainer.zero_init_worker:initial_values")
