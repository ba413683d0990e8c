"""Whether a processor computes faster in bfloat16 than in float32.

Knows what the processor's flags tell and what only a measurement does. Does not know the run and what the user asked.
"""

import functools
import time

import torch
from torch.nn.functional import linear

ROWS, FEATURES = 1024, 512
"""Of the matrix product that is measured."""
REPEATS = 7
CLEARLY_FASTER = 1.25
"""Casting to bfloat16 and back costs as well, and a product that is hardly faster does not pay for it."""


@functools.cache
def bfloat16_is_faster() -> bool:
    """Tells whether training under bfloat16 autocast is worth it on this machine's processor.

    AMX is made for products of bfloat16. AVX512_BF16 alone tells nothing: a processor may have its instructions and
    train slower with them (an Intel Xeon did, `benchmarks/results/step.md` at commit 029496c), so that a product is
    timed. Others emulate bfloat16.

    `torch.cpu.get_capabilities` would tell the flags in public, but is newer than the oldest torch that we work with.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and _speed_up() >= CLEARLY_FASTER


def _speed_up() -> float:
    """Returns the seconds of a matrix product in float32 over those in bfloat16.

    In one thread: where a machine has other work as well, threads wait for each other far longer than such a product
    takes, and the answer would be a matter of luck.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _seconds(torch.float32) / _seconds(torch.bfloat16)
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _seconds(dtype: torch.dtype) -> float:
    """Returns the least seconds of a matrix product; whatever else the machine does only makes it longer."""
    inputs, weight = torch.ones(ROWS, FEATURES, dtype=dtype), torch.ones(FEATURES, FEATURES, dtype=dtype)
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        linear(inputs, weight)
        taken.append(time.perf_counter() - start)
    return min(taken)
