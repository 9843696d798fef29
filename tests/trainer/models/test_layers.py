"""Blocks: the short cut for one token, stochastic depth, and recomputation."""

import pytest
import torch
from torch import Tensor

from tests.support.trainer.small_models import debug_model, pixels
from tests.support.trainer.tower_styles import SHRUNK, randomise, shrunk
from trainer.data import tokenizer
from trainer.models.clip import Clip
from trainer.models.layers import Attention, Block, Mlp
from trainer.models.norms import Norm, NormOfSum


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
    block = Block(attention, Mlp(8, 8, out_std=1.0), (Norm(8, 1e-5), NormOfSum(8, 1e-5)), drop_path=0.5)
    x = torch.randn(1, 3, 8).expand(4000, -1, -1)
    untouched = (block(x) == x).all(dim=2).all(dim=1).float().mean()
    assert 0.2 < untouched < 0.3  # both branches dropped: a quarter
    after_attention = x + 2 * attention(block.norm1(x))
    only_attention = torch.isclose(block(x), after_attention, atol=1e-5).all(dim=2).all(dim=1).float().mean()
    assert 0.2 < only_attention < 0.3
    assert torch.equal(block.eval()(x)[0], block(x)[1])


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
