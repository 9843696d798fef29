"""Pseudo-random permutations that are computed, not stored, so that any position of an epoch is known at once.

A Feistel network is a bijection of `[0, 4**k)` whatever its round function; walking along its cycle until the value
falls below n makes it one of `[0, n)` (Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
"""

from __future__ import annotations

import numpy as np

ROUNDS = 6
Array = np.ndarray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFTS = tuple(np.uint64(bits) for bits in (30, 27, 31))


def mix(*words: int | Array) -> Array:
    """Hash integers (or arrays of them, which broadcast) to uint64; splitmix64's finaliser over each word in turn."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            value = np.asarray(word).astype(np.uint64, copy=False)
            state = (state ^ value) + _GOLDEN
            state = (state ^ (state >> _SHIFTS[0])) * _MIX_1
            state = (state ^ (state >> _SHIFTS[1])) * _MIX_2
            state = state ^ (state >> _SHIFTS[2])
    return state


def uniforms(num: int, *words: int | Array) -> Array:
    """`num` float64 in [0, 1) for every element of the broadcast words: shape `[*words, num]`."""
    keys = mix(*words)
    draws = mix(keys[..., None], np.arange(num))
    return (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(positions: Array, sizes: int | Array, keys: int | Array) -> Array:
    """Images of `positions` under the permutation of `[0, size)` that `key` names; all three broadcast.

    Args:
        positions: int64, each below its size.
        sizes: size of the domain, at least 1.
        keys: which permutation; equal keys and sizes give equal permutations.
    """
    values, sizes, keys = np.broadcast_arrays(positions, sizes, keys)
    half_bits = _half_bits(sizes)
    values = _feistel(values.astype(np.uint64), half_bits, keys)
    outside = np.flatnonzero(values >= sizes.astype(np.uint64))
    while outside.size:
        walked = _feistel(values[outside], half_bits[outside], keys[outside])
        values[outside] = walked
        outside = outside[walked >= sizes[outside].astype(np.uint64)]
    return values.astype(np.int64)


def _half_bits(sizes: Array) -> Array:
    """Half of the smallest even number of bits that counts to each size."""
    bits = np.frexp(np.maximum(sizes - 1, 1).astype(np.float64))[1]
    halves: Array = ((bits + 1) // 2).astype(np.uint64)
    return halves


def _feistel(values: Array, half_bits: Array, keys: Array) -> Array:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for turn in range(ROUNDS):
        left, right = right, left ^ (mix(keys, right, turn) & mask)
    joined: Array = (left << half_bits) | right
    return joined
