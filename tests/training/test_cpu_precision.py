"""When a processor's training is in bfloat16: by its flags where they tell, and by a measurement where not."""

import pytest
import torch

from hf_transfer.training import cpu_precision


@pytest.fixture(autouse=True)
def asked_anew():
    cpu_precision.bfloat16_is_faster.cache_clear()
    yield
    cpu_precision.bfloat16_is_faster.cache_clear()


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "float32_over_bfloat16", "faster"),
    [
        (True, True, 0.5, True),  # a few small products are no reason against AMX
        (False, True, 2.0, True),
        (False, True, 1.1, False),
        (False, True, 0.5, False),
        (False, False, 2.0, False),
    ],
)
def test_flags_and_a_measurement(amx, avx512_bf16, float32_over_bfloat16, faster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    seconds = {torch.float32: float32_over_bfloat16, torch.bfloat16: 1.0}
    monkeypatch.setattr(cpu_precision, "_seconds", seconds.__getitem__)
    assert cpu_precision.bfloat16_is_faster() is faster


def test_a_process_measures_once(monkeypatch: pytest.MonkeyPatch):
    """Whoever asks again is told the same."""
    asked = []
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: asked.append(1) is None)
    assert cpu_precision.bfloat16_is_faster() is cpu_precision.bfloat16_is_faster()
    assert asked == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_takes_some_time(dtype: torch.dtype):
    assert cpu_precision._seconds(dtype) > 0


def test_one_thread_is_timed_and_the_others_come_back(monkeypatch: pytest.MonkeyPatch):
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(cpu_precision, "_seconds", lambda dtype: float(seen.append(torch.get_num_threads()) is None))
    torch.set_num_threads(2)
    try:
        cpu_precision._speed_up()
        assert (seen, torch.get_num_threads()) == ([1, 1], 2)
    finally:
        torch.set_num_threads(before)
