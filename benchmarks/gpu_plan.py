"""What is measured on a GPU: networks, tasks, sizes, and what of them still fits into the time that is left.

Knows names and numbers alone, so that it costs no import. Does not run anything and does not judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BARE, TRAINING, TIMM, BARE_AGAIN, INFERENCE, EXTRACTION = (
    "bare loop",
    "training",
    "timm",
    "bare loop, again",
    "bare inference",
    "extraction",
)
TASKS = (BARE, TRAINING, TIMM, BARE_AGAIN, INFERENCE, EXTRACTION)
"""In the order in which they run: the bare loop before and after ours, so that a GPU that slows down shows."""
DECODING = "decoding"
START = "start"
EXPECTED = {START: 20.0, BARE: 10.0, TRAINING: 45.0, TIMM: 12.0, BARE_AGAIN: 8.0, INFERENCE: 8.0, EXTRACTION: 35.0}
"""Seconds that a network's process is expected to take for its start and its tasks, until some were measured."""


@dataclass(frozen=True)
class Network:
    """One architecture: that of transformers, which we train, and timm's of the same name."""

    name: str
    model_type: str
    pixels: int
    timm: str
    settings: Mapping[str, object]
    """Of transformers' configuration, where its defaults are another size."""
    tiny: Mapping[str, object]
    """The same for the smoke run, at 32 pixels."""
    tiny_timm: str


_B3 = {
    "image_size": 300,
    "width_coefficient": 1.2,
    "depth_coefficient": 1.4,
    "hidden_dim": 1536,
    "dropout_rate": 0.3,
    "depthwise_padding": [5, 18],
}
_TINY_EFFICIENTNET = {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320}
_TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
NETWORKS = (
    Network(
        "ResNet-50",
        "resnet",
        224,
        "resnet50",
        {},
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        "resnet10t",
    ),
    Network(
        "ViT-B/16",
        "vit",
        224,
        "vit_base_patch16_224",
        {},
        {**_TINY_VIT, "image_size": 32, "patch_size": 8},
        "vit_tiny_patch16_224",
    ),
    Network(
        "ConvNeXt-Tiny",
        "convnext",
        224,
        "convnext_tiny",
        {},
        {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1], "image_size": 32},
        "convnext_atto",
    ),
    Network("EfficientNet-B3", "efficientnet", 300, "efficientnet_b3", _B3, _TINY_EFFICIENTNET, "efficientnet_lite0"),
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    classes: int
    train_per_class: int
    other_per_class: int
    """Of the validation and of the test pictures; few, since a run of ours evaluates on them at its end."""
    picture: tuple[int, int]
    """Width and height of a JPEG."""
    batch: int
    inference_batch: int
    """Of inference and extraction."""
    warm_up: int
    """Steps before the clock starts."""
    between_looks: int
    """Steps of a bare loop between two looks at the clock, each of which waits for the GPU."""
    seconds: float
    """Of a bare loop, at least."""
    training_seconds: float
    """That our measured steps are to take, if they are as fast as the bare loop."""
    fewest_steps: int
    extraction_epochs: int
    """More than the views that are kept, or nothing would be."""

    def steps(self, bare_rate: float | None) -> int:
        """Returns how many steps of ours are measured, by what the bare loop made of the same batches."""
        if bare_rate is None:
            return self.fewest_steps
        return max(self.fewest_steps, round(self.training_seconds * bare_rate / self.batch))


FULL = Size(100, 64, 2, (500, 375), 128, 256, 20, 10, 5.0, 12.0, 60, 3)
SMOKE = Size(3, 3, 2, (60, 45), 4, 8, 1, 2, 0.0, 0.0, 2, 3)
SMOKE_PIXELS = 32


def pixels_of(network: Network, smoke: bool) -> int:
    """Returns the side of the square that a network sees."""
    return SMOKE_PIXELS if smoke else network.pixels


def affordable(tasks: Sequence[str], left: float, expected: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Divides the tasks of a network into those that still fit and those that do not, in their order.

    Args:
        tasks (`Sequence[str]`):
            What is to be done.
        left (`float`):
            Seconds until the whole command has to end.
        expected (`Mapping[str, float]`):
            Seconds of each task, and of `START`.

    Returns:
        `tuple[list[str], list[str]]`: what fits, and what does not.
    """
    fits: list[str] = []
    left -= expected[START]
    for task in tasks:
        if expected[task] <= left:
            fits.append(task)
            left -= expected[task]
    return fits, [task for task in tasks if task not in fits]


def learned(expected: Mapping[str, float], records: Sequence[Mapping]) -> dict[str, float]:
    """Returns what tasks are expected to take after some were measured: as long as the slowest so far."""
    taken: dict[str, float] = {}
    for record in records:
        if "wall_seconds" in record:
            taken[record["task"]] = max(record["wall_seconds"], taken.get(record["task"], 0.0))
    return {**expected, **taken}
