"""The model family: exact sizes, every style equal to timm's, the whole equal to open_clip's, what training needs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from curation.errors import UserError
from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.torchvision_stub import oracle
from tests.support.trainer.tower_styles import SHRUNK, randomise, shrunk, timm_tower
from trainer import models, weights
from trainer.data import tokenizer
from trainer.models import flops
from trainer.models.clip import Clip
from trainer.models.layers import Attention, Block, Mlp
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


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def debug_model(**overrides: Any) -> Clip:
    """The debug model on weights that leave no part without effect."""
    model = models.build("debug", **overrides)
    randomise(model)
    return model


def pixels(model: Clip | MaskedImageModel, count: int = 2) -> Tensor:
    """Random images of the model's size."""
    side = model.config.vision.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_parameter_count_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        model = models.build(name)
    parameters = list(model.parameters())
    assert all(parameter.is_meta for parameter in parameters) and not list(model.buffers())
    assert sum(parameter.numel() for parameter in parameters) == NUM_PARAMETERS[name]


def test_names_are_the_files_in_configs() -> None:
    assert set(models.names()) == {*NUM_PARAMETERS, "debug"}


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


def test_sizing_a_model_imports_no_torch() -> None:
    code = (
        "import sys, trainer, trainer.models, trainer.models.flops as flops; "
        "flops.step_flops(trainer.models.config('eva-clip-18b')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def unit_features(tower: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What the loss sees of an image tower."""
    with torch.no_grad():
        return F.normalize(tower(images), dim=-1)


def difference_from_timm(name: str, path: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> float:
    """Largest difference of a unit feature between timm's tower and ours with `changes`, on the same weights."""
    theirs = timm_tower(name)
    save_file(theirs.state_dict(), path)
    ours = Clip(shrunk(name, **changes)).eval()
    weights.fill_towers(ours, image=path)
    images = pixels(ours).to(dtype)
    reference = unit_features(theirs.to(dtype), images)
    return (unit_features(ours.to(dtype).encode_image, images) - reference).abs().max().item()


@pytest.mark.parametrize("name", SHRUNK)
def test_tower_equals_timm(name: str, tmp_path: Path) -> None:
    assert difference_from_timm(name, tmp_path / "timm.safetensors") < 1e-6
    assert difference_from_timm(name, tmp_path / "timm.safetensors", torch.float64) < 1e-12


@pytest.mark.parametrize("name", SHRUNK)
@pytest.mark.parametrize("change", ["eps", "rope", "norm order"])
def test_comparison_with_timm_notices_a_wrong_model(name: str, change: str, tmp_path: Path) -> None:
    vision = shrunk(name).vision
    changes: dict[str, dict[str, Any]] = {
        "eps": {"norm_eps": 1e-5},
        "rope": {"rope_grid": 8 if vision.rope_grid else 16},
        "norm order": {"post_norm": not vision.post_norm},
    }
    assert difference_from_timm(name, tmp_path / "timm.safetensors", **changes[change]) > 1e-5


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


def test_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64"):
        models.build("debug").encode_image(torch.zeros(1, 3, 80, 80))


def test_patches_are_projected_as_cls_is() -> None:
    model = debug_model().eval()
    images = pixels(model)
    tokens = model.visual(images, output="tokens")
    assert tokens.shape == (2, 17, 96)
    torch.testing.assert_close(model.visual.head(tokens[:, 0]), model.encode_image(images))
    torch.testing.assert_close(model.visual.head(tokens[:, 1:]), model.encode_patches(images))


def test_patch_dropout_turns_each_patch_by_its_own_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention does not see order, so all patches in random orders give what none dropped gives."""
    model = debug_model().double()
    images = pixels(model, 4).double()
    expected = model.encode_image(images)
    shuffled = torch.rand(4, 16).argsort(dim=1)
    monkeypatch.setattr(model.visual, "_draw_kept", lambda _: shuffled)
    torch.testing.assert_close(model.encode_image(images), expected)


def test_patch_dropout_keeps_a_share_and_only_in_training() -> None:
    model = debug_model(vision={"patch_drop": 0.5})
    images = pixels(model)
    assert model.visual(images, output="tokens").shape[1] == 1 + 8
    assert not torch.equal(model.encode_image(images), model.encode_image(images))
    model.set_patch_drop(0.75)
    assert model.visual(images, output="tokens").shape[1] == 1 + 4
    assert model.eval().visual(images, output="tokens").shape[1] == 1 + 16
    assert torch.equal(model.encode_image(images), model.encode_image(images))


@pytest.mark.parametrize("name", SHRUNK)
def test_last_block_for_one_token_is_the_whole_block(name: str) -> None:
    """It may only be faster: features and gradients are those of every token going through."""
    model = Clip(shrunk(name)).double().eval()
    randomise(model)
    images, tokens = pixels(model).double(), tokenizer.tokenize(["a dog", "two cats on a mat"])
    cls = model.visual(images, output="tokens")[:, 0]
    states = model.text.token_embedding(tokens) + model.text.positional_embedding
    ends = model.text.norm(model.text.blocks(states))[torch.arange(2), tokens.argmax(dim=-1)]
    whole = (model.visual.head(cls), model.text.head(ends))
    pooled = (model.encode_image(images), model.encode_text(tokens))
    torch.testing.assert_close(pooled, whole)
    parameters = [*model.visual.parameters(), *model.text.parameters()]
    gradients = [torch.autograd.grad(torch.cat(pair).square().sum(), parameters) for pair in (pooled, whole)]
    torch.testing.assert_close(*gradients)


def test_drop_path_drops_whole_branches_of_samples() -> None:
    attention = Attention(8, 4, bias="qkv", proj_std=1.0)
    block = Block(attention, Mlp(8, 8, out_std=1.0), (nn.LayerNorm(8), nn.LayerNorm(8)), drop_path=0.5)
    x = torch.randn(1, 3, 8).expand(4000, -1, -1)
    untouched = (block(x) == x).all(dim=2).all(dim=1).float().mean()
    assert 0.2 < untouched < 0.3  # both branches dropped: a quarter
    after_attention = x + 2 * attention(block.norm1(x))
    only_attention = torch.isclose(block(x), after_attention, atol=1e-5).all(dim=2).all(dim=1).float().mean()
    assert 0.2 < only_attention < 0.3
    assert torch.equal(block.eval()(x)[0], block(x)[1])


def test_drop_path_grows_with_depth() -> None:
    with torch.device("meta"):
        rates = [block.drop_path for block in models.build("eva01-g-14").visual.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.4, 40))


@pytest.mark.parametrize("name", ["eva02-b-16", "eva-clip-18b"])
def test_checkpointing_gives_the_same_gradients(name: str) -> None:
    model = Clip(shrunk(name, drop_path=0.3, patch_drop=0.5))
    randomise(model)

    def gradients(checkpointed: bool) -> list[Tensor]:
        torch.manual_seed(5)
        model.set_grad_checkpointing(checkpointed)
        model.zero_grad()
        image, text, scale = model(pixels(model), tokenizer.tokenize(["a dog", "a cat"]))
        ((image @ text.T) * scale).square().sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    plain, recomputed = gradients(False), gradients(True)
    assert len(plain) == len(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


def test_checkpointing_recomputes_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model = debug_model()
    model.set_grad_checkpointing()
    calls: list[Block] = []
    forward = Block.forward

    def counted(self: Block, *rest: Tensor | None) -> Tensor:
        calls.append(self)
        return forward(self, *rest)  # type: ignore[arg-type]  # the block's own arguments, handed on

    monkeypatch.setattr(Block, "forward", counted)
    model(pixels(model), tokenizer.tokenize(["a", "b"]))[0].sum().backward()
    assert len(calls) == 3 + 2 + 3  # each block once, and the image tower's again on the way back


def test_training_after_evaluation_in_inference_mode() -> None:
    model = debug_model()
    with torch.inference_mode():
        model.encode_image(pixels(model))
    model.encode_image(pixels(model)).sum().backward()
    assert model.visual.patch_embed.weight.grad is not None


@pytest.mark.parametrize("name", ["eva02-b-16", "eva-clip-18b"])
def test_bfloat16_stays_close(name: str) -> None:
    model = Clip(shrunk(name)).eval()
    randomise(model)
    images = pixels(model)
    exact = unit_features(model.encode_image, images)
    rounded = unit_features(model.bfloat16().encode_image, images.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded.float()).abs().max() < 0.02


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
