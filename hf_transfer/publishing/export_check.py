"""An exported model held against the original: logits, predictions, sizes, time.

Knows what is compared and how far apart may be. Does not know formats or where pictures come from.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hf_transfer.errors import UserError
from hf_transfer.publishing.export_formats import Runner

TOLERANCE = 1e-3
"""Largest difference of a logit, as a share of the largest logit. The same float32 sums in another order differ by
some 1e-6 of it (benchmarks/results/export.md); a graph that computes something else differs by far more."""
BATCH_SIZES = (1, 3, 8)
"""Batches that the check is made with: the exported file was captured with one of two."""
LATENCY_BATCH_SIZES = (1, 8)
TURNS = 25
SECONDS = 8.0
"""For each size of batch, the time after which no further turn begins."""
LEAST_TURNS = 5


@dataclass(frozen=True)
class Comparison:
    """What came of the same pixels in the original and in the exported file."""

    num_pictures: int
    batch_sizes: tuple[int, ...]
    max_abs_difference: float
    """Of a logit, over all pictures and sizes of batch."""
    largest_logit: float
    """By absolute value, of the original."""
    tolerance: float
    """Share of `largest_logit` that `max_abs_difference` may be."""
    same_predictions: int
    """Pictures that get the same label."""

    @property
    def allowed_difference(self) -> float:
        """The largest difference that passes."""
        return self.tolerance * self.largest_logit


@dataclass(frozen=True)
class Latency:
    """Median times of one batch, original and exported in turns."""

    batch_size: int
    turns: int
    original_ms: float
    exported_ms: float

    @property
    def speedup(self) -> float:
        """How many times faster the exported file is."""
        return self.original_ms / self.exported_ms


def compare(
    original: Runner, exported: Runner, pixel_values: torch.Tensor, tolerance: float = TOLERANCE
) -> Comparison:
    """Runs both on the same pixels, in batches of 8, 3 and 1.

    Args:
        original, exported (`Callable`):
            From pixel values to logits.
        pixel_values (`torch.Tensor`):
            Of shape `(num_pictures, channels, height, width)`.
        tolerance (`float`, *optional*):
            Share of the largest logit.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the original's scores are not finite.
    """
    wanted = _in_batches(original, pixel_values, max(BATCH_SIZES))
    if not bool(torch.isfinite(wanted).all()):
        raise UserError(
            "The model gives scores that are not finite numbers, so its weights are damaged or its training diverged.",
            hint="train again with a smaller --learning_rate",
        )
    found = _in_batches(exported, pixel_values, max(BATCH_SIZES))
    differences = [_difference(found, wanted)]
    for size in sorted(BATCH_SIZES)[:-1]:
        # Enough to see that the size of a batch is free; every picture is compared in batches of 8.
        some = pixel_values[: 2 * size]
        differences.append(_difference(_in_batches(exported, some, size), wanted[: len(some)]))
    return Comparison(
        num_pictures=len(pixel_values),
        batch_sizes=BATCH_SIZES,
        max_abs_difference=max(differences),
        largest_logit=float(wanted.abs().max()),
        tolerance=tolerance,
        same_predictions=int((found.argmax(1) == wanted.argmax(1)).sum()),
    )


def check_comparison(comparison: Comparison, export_format: str) -> None:
    """Refuses an export that is not the same model.

    Raises:
        [`~hf_transfer.errors.UserError`]: where logits differ by more than the tolerance, or a prediction differs.
    """
    told = (
        f"logits differ by up to {comparison.max_abs_difference:.3g} (allowed: {comparison.allowed_difference:.3g}, "
        f"{comparison.tolerance:g} of the largest), and {comparison.same_predictions} of {comparison.num_pictures} "
        "predictions are the same"
    )
    # Written so that not-a-number fails too.
    close = comparison.max_abs_difference <= comparison.allowed_difference
    if close and comparison.same_predictions == comparison.num_pictures:
        return
    other = "torch" if export_format == "onnx" else "onnx"
    raise UserError(
        f"The {export_format} export is not the same model, so nothing is written: {told}.",
        "the same predictions, and logits within the tolerance",
        f"--format {other}; or, if only the last digits differ, a wider --tolerance",
    )


def measure_latency(original: Runner, exported: Runner, pixel_values: torch.Tensor) -> tuple[Latency, ...]:
    """Times both on this machine's CPU, in turns, so that whatever else runs here slows both.

    Args:
        original, exported (`Callable`):
            From pixel values to logits.
        pixel_values (`torch.Tensor`):
            Pictures; repeated where there are fewer than a batch.
    """
    return tuple(_latency(original, exported, _first(pixel_values, size)) for size in LATENCY_BATCH_SIZES)


def _latency(original: Runner, exported: Runner, batch: torch.Tensor) -> Latency:
    times: tuple[list[float], list[float]] = ([], [])
    for runner in (original, exported):  # the first pass allocates
        _timed(runner, batch)
    start = time.perf_counter()
    while len(times[0]) < TURNS and (len(times[0]) < LEAST_TURNS or time.perf_counter() - start < SECONDS):
        for seconds, runner in zip(times, (original, exported), strict=True):
            seconds.append(_timed(runner, batch))
    medians = [1000 * statistics.median(seconds) for seconds in times]
    return Latency(len(batch), len(times[0]), medians[0], medians[1])


def _timed(runner: Runner, batch: torch.Tensor) -> float:
    with torch.inference_mode():
        start = time.perf_counter()
        runner(batch)
        return time.perf_counter() - start


def _first(pixel_values: torch.Tensor, count: int) -> torch.Tensor:
    repeats = -(-count // len(pixel_values))
    return pixel_values.repeat(repeats, 1, 1, 1)[:count].contiguous()


def _in_batches(runner: Runner, pixel_values: torch.Tensor, size: int) -> torch.Tensor:
    # Fewer pictures than a batch holds are repeated, so that each size is really tried.
    padded = _first(pixel_values, max(size, len(pixel_values)))
    with torch.inference_mode():
        logits = torch.cat([runner(batch.contiguous()) for batch in padded.split(size)])
    return logits[: len(pixel_values)].float().clone()


def _difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max()) if found.shape == wanted.shape else float("inf")


def medians_line(latencies: Sequence[Latency]) -> str:
    """Returns the medians in a line, for people to read."""
    return "; ".join(
        f"batch {item.batch_size}: {item.exported_ms:.1f} ms against {item.original_ms:.1f} ms ({item.speedup:.2f}x)"
        for item in latencies
    )
