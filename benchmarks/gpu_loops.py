"""The limits and the peer of a GPU: loops of nothing but the network, on batches that lie on the device.

Knows models, optimizers and clocks. Nothing of ours runs here.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import torch
from gpu_plan import Network, Size
from peer_bare import memory_layout
from peer_job import Logits
from torch import nn
from torch.nn.functional import cross_entropy

RATE, WEIGHT_DECAY, CLIP = 1e-4, 0.01, 1.0
_BATCHES = 4


def wait_for(device: torch.device) -> None:
    """Returns when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """Lets the next peak of memory be of what comes from here on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Returns the most that tensors have taken; `None` where the memory is the machine's."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def batches(size: int, count: int, pixels: int, classes: int, device: torch.device, layout: Any) -> Iterator[tuple]:
    """Returns random pictures with labels that lie on the device, again and again.

    Args:
        size (`int`):
            Pictures in a batch.
        count (`int`):
            Batches that differ.
        pixels (`int`):
            Side of a picture.
        classes (`int`):
            Labels.
        device (`torch.device`):
            Where they lie.
        layout (`torch.memory_format`):
            How they lie.
    """
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        pictures = torch.randn(size, 3, pixels, pixels, generator=generator)
        labels = torch.randint(classes, (size,), generator=generator)
        made.append((pictures.to(device).contiguous(memory_format=layout), labels.to(device)))
    return cycle(made)


def timed(step: Callable[[], None], images: int, size: Size, device: torch.device) -> dict:
    """Measures images a second of a step that is done again and again, after a warm-up."""
    forget_peak(device)
    for _ in range(size.warm_up):
        step()
    wait_for(device)
    start, steps, seconds = time.perf_counter(), 0, 0.0
    while steps == 0 or seconds < size.seconds:
        for _ in range(size.between_looks):
            step()
        steps += size.between_looks
        wait_for(device)
        seconds = time.perf_counter() - start
    return {"rate": steps * images / seconds, "steps": steps, "seconds": seconds, "peak_bytes": peak_bytes(device)}


def bare_training(network: nn.Module, pixels: int, size: Size, device: torch.device) -> dict:
    """Trains the network of transformers with what a step of ours has: fused AdamW, clipping, bf16, its layout."""
    layout = memory_layout(network)
    model = Logits(network).train().to(device)
    nn.Module.to(model, memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=WEIGHT_DECAY, fused=True)
    ready = batches(size.batch, _BATCHES, pixels, size.classes, device, layout)

    def step() -> None:
        pictures, labels = next(ready)
        with _autocast(device):
            logits = model(pictures)
        cross_entropy(logits.float(), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, size.batch, size, device)


def bare_inference(network: nn.Module, pixels: int, size: Size, device: torch.device) -> dict:
    """Passes pictures through the whole network and throws the answer away."""
    layout = memory_layout(network)
    model = Logits(network).eval().to(device)
    nn.Module.to(model, memory_format=layout)
    ready = batches(size.inference_batch, _BATCHES, pixels, size.classes, device, layout)

    @torch.inference_mode()
    def step() -> None:
        with _autocast(device):
            model(next(ready)[0])

    return timed(step, size.inference_batch, size, device)


def timm_training(network: Network, pixels: int, size: Size, device: torch.device, smoke: bool) -> dict:
    """Trains timm's network of that name as timm's benchmark script does, with our optimizer.

    timm is driven as a library, since its script is not installed with it: its network, its task and its AdamW, on
    random pictures that lie on the device, channels-last and in bf16 autocast, without clipping; cuDNN tries its
    kernels out, which the script lets it do.
    """
    import timm
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask

    how = {"img_size": pixels} if network.timm.startswith("vit") else {}
    name = network.tiny_timm if smoke else network.timm
    model = timm.create_model(name, pretrained=False, num_classes=size.classes, **how).to(device)
    nn.Module.to(model, memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=RATE, weight_decay=WEIGHT_DECAY)
    task = ClassificationTask(model, device=device, verbose=False)
    task.train()
    ready = batches(size.batch, _BATCHES, pixels, size.classes, device, torch.channels_last)

    def step() -> None:
        pictures, labels = next(ready)
        optimizer.zero_grad()
        with _autocast(device):
            loss = task(pictures, labels)["loss"]
        loss.backward()
        optimizer.step()

    with _kernels_tried_out():
        return timed(step, size.batch, size, device) | {"architecture": name}


def _autocast(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@contextmanager
def _kernels_tried_out() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
