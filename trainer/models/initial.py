"""How widely the values of an image tower are drawn at its start, layer by layer."""

import math
from dataclasses import dataclass

from trainer.models.config import VisionConfig

PLAIN_STD = 0.02
"""Of everything that no rule names: tokens, positions, and the layers of BEiT's towers."""


@dataclass(frozen=True)
class BlockStds:
    """Standard deviations of one block's weights; all are drawn from N(0, std²)."""

    query_key: float
    value: float
    attention_out: float
    mlp_in: float
    mlp_out: float


@dataclass(frozen=True)
class TowerStds:
    """Standard deviations of a tower's weights."""

    patches: float
    blocks: tuple[BlockStds, ...]


def choose_beit_stds(config: VisionConfig) -> TowerStds:
    """0.02, and what ends the branches of block l (from 1) divided by √(2l) (arXiv 2106.08254, section 2.5)."""
    blocks = []
    for number in range(1, config.layers + 1):
        out = PLAIN_STD / math.sqrt(2 * number)
        blocks.append(BlockStds(PLAIN_STD, PLAIN_STD, out, PLAIN_STD, out))
    return TowerStds(PLAIN_STD, tuple(blocks))


def choose_pretraining_stds(config: VisionConfig) -> TowerStds:
    """As EVA's code starts a tower for masked image modelling: with sub-LN EVA-02's values, without it BEiT's.

    EVA-02's are Xavier's, and those of values, of the MLP and of both outputs √(log 2·depth) times as large, in every
    block alike (EVA-02/asuka/modeling_pretrain.py, `jax_init` and `subln`; the factor is arXiv 2210.06423's, section
    2.2). The patch embedding's are uniform there and normal here, with the same standard deviation.
    """
    if not config.sub_norm:
        return choose_beit_stds(config)
    gain = math.sqrt(math.log(2 * config.layers))
    square, mlp = xavier_std(config.width, config.width), xavier_std(config.width, config.hidden_width)
    block = BlockStds(square, gain * square, gain * square, gain * mlp, gain * mlp)
    return TowerStds(xavier_std(3 * config.patch_size**2, config.width), (block,) * config.layers)


def xavier_std(inputs: int, outputs: int) -> float:
    """√(2 / (inputs + outputs)) (Glorot and Bengio 2010, equation 12)."""
    return math.sqrt(2 / (inputs + outputs))
