"""One step of contrastive training over any number of micro-batches.

The loss of a contrastive batch is no mean of micro-batches' losses: every pair is scored against the whole batch. So a
step first computes all features without keeping activations, takes the loss of the whole batch and its gradient with
respect to the features, then runs each micro-batch again and sends its share of that gradient through the model
(gradient caching, arXiv 2101.06983, section 3.2). The result is the large batch's, at a micro-batch's memory; the loss
is computed once, not once a micro-batch as with open_clip's --accum-freq.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.data.feed import Batch
from trainer.objectives.contrastive_model import Outputs
from trainer.objectives.loss import CHUNK_ROWS, LOSSES
from trainer.objectives.protocol import Judge, Seeder


def contrastive_step(
    engine: Any,
    micro_batches: Sequence[Batch],
    loss_name: str,
    seed: Seeder,
    is_sound: Judge,
    chunk_rows: int = CHUNK_ROWS,
) -> tuple[Tensor, Tensor]:
    """Forward and backward of one step of this rank's micro-batches; the caller steps the optimizer.

    Args:
        engine: a DeepSpeed engine around a `ContrastiveModel`.
        micro_batches: "pixels" and "tokens" on the engine's device, all of one size.
        loss_name: of `trainer.objectives.loss.LOSSES`.
        seed, is_sound: see `trainer.objectives.protocol`.
        chunk_rows: rows of the loss's logits that are in memory at once.

    Returns:
        This rank's loss, `[]`, and the inverse temperature, `[1]`, both detached.
    """
    loss_of = LOSSES[loss_name]
    if len(micro_batches) == 1:
        seed(0)
        outputs = _forward(engine, micro_batches[0])
        loss = loss_of(*outputs, chunk_rows)
        if is_sound(loss.detach()):
            engine.set_gradient_accumulation_boundary(True)
            engine.backward(loss)
        return loss.detach(), outputs.scale.detach()
    cached = _encode_without_gradients(engine, micro_batches, seed)
    loss = loss_of(*cached, chunk_rows)
    if is_sound(loss.detach()):
        loss.backward()
        _backpropagate_features(engine, micro_batches, cached, seed)
    return loss.detach(), cached.scale.detach()


def _forward(engine: Any, batch: Batch) -> Outputs:
    outputs: Outputs = engine(batch["pixels"], batch["tokens"])
    return outputs


def _encode_without_gradients(engine: Any, micro_batches: Sequence[Batch], seed: Seeder) -> Outputs:
    """The outputs of all micro-batches of this rank, as leaves that collect gradients."""
    outputs = []
    with torch.no_grad():
        for index, batch in enumerate(micro_batches):
            seed(index)
            outputs.append(_forward(engine, batch))
    image = torch.cat([o.image for o in outputs]).requires_grad_()
    text = torch.cat([o.text for o in outputs]).requires_grad_()
    # Detached: in fp32 the bias is the parameter itself, whose gradient must come through the engine only.
    scale, bias = outputs[0].scale.detach().clone().requires_grad_(), outputs[0].bias
    return Outputs(image, text, scale, None if bias is None else bias.detach().clone().requires_grad_())


def _backpropagate_features(engine: Any, micro_batches: Sequence[Batch], cached: Outputs, seed: Seeder) -> None:
    """Run each micro-batch again: the inner product of its features with the cached gradients has their gradient."""
    assert cached.image.grad is not None and cached.text.grad is not None
    size = len(cached.image) // len(micro_batches)
    image_grads, text_grads = cached.image.grad.split(size), cached.text.grad.split(size)
    for index, batch in enumerate(micro_batches):
        seed(index)
        last = index == len(micro_batches) - 1
        engine.set_gradient_accumulation_boundary(last)
        outputs = _forward(engine, batch)
        surrogate = (outputs.image * image_grads[index]).sum() + (outputs.text * text_grads[index]).sum()
        # Temperature and bias enter the loss once, so their gradient goes in once.
        for output, leaf in ((outputs.scale, cached.scale), (outputs.bias, cached.bias)):
            if output is not None and leaf is not None and leaf.grad is not None:
                surrogate = surrogate + (output * leaf.grad).sum() * float(last)
        engine.backward(surrogate)
