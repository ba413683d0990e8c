"""From an RGB picture to a tensor: exactly the processor's for evaluation, varied for training.

Knows augmentation policies and the order of the steps. The steps are in `hf_transfer.data.pixel_steps`; what the
processor does is measured in `hf_transfer.data.processor_facts`; mixing of pictures with each other is in
`hf_transfer.data.mixing`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional
from transformers import BaseImageProcessor

from hf_transfer.data.pixel_steps import ColourJitter, Erasing, FrameCrop, Mirror, Picture, PixelMap
from hf_transfer.data.processor_facts import ProcessorFacts, processor_facts
from hf_transfer.errors import UserError

Transform = Callable[[Picture], torch.Tensor]


@dataclass(frozen=True)
class AugmentationSettings:
    """How training pictures are varied, in numbers."""

    policy: str
    crop_scale: tuple[float, float] = (1.0, 1.0)
    """Area of the random crop, as a share of the largest crop of its shape."""
    crop_ratio: float = 1.0
    """How far the shape of the crop may differ from the one that evaluation sees, as a factor either way."""
    flip: float = 0.0
    """Probability of a mirror image."""
    colour_jitter: float = 0.0
    """Range of brightness, contrast and saturation, either way."""
    rotation: float = 0.0
    """Degrees, either way."""
    auto_augment: str = "none"
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def describe(self) -> str:
        """Returns the policy's name and what it does, in a line."""
        parts = []
        if self.policy != "none":
            parts.append(f"crops of {self.crop_scale[0]:.0%} or more, flips")
        if self.auto_augment != "none":
            parts.append(self.auto_augment)
        for name in ("random_erasing", "mixup", "cutmix"):
            if getattr(self, name) > 0:
                parts.append(f"{name.replace('_', ' ')} {getattr(self, name):g}")
        return f"{self.policy}: {', '.join(parts)}" if parts else self.policy


POLICIES = {
    "none": AugmentationSettings("none"),
    # Gentle, for a frozen backbone whose features cannot adapt: rotation and smaller crops lowered the validation
    # accuracy of a linear head, as did, by less, any variation in six epochs (`benchmarks/results/augmentation.md`).
    "light": AugmentationSettings("light", crop_scale=(0.6, 1.0), crop_ratio=1.1, flip=0.5, colour_jitter=0.1),
    # Crops as in Inception (Szegedy et al. 2015, arXiv:1409.4842) at a gentler lower end; TrivialAugment (Müller and
    # Hutter 2021, arXiv:2103.10158); erasing 0.25 as in Zhong et al. 2017 (arXiv:1708.04896) at half their
    # probability; mixup 0.2 (Zhang et al. 2018, arXiv:1710.09412) and CutMix 1.0 (Yun et al. 2019, arXiv:1905.04899).
    "strong": AugmentationSettings(
        "strong",
        crop_scale=(0.25, 1.0),
        crop_ratio=4 / 3,
        flip=0.5,
        colour_jitter=0.2,
        rotation=10.0,
        auto_augment="trivialaugment",
        random_erasing=0.25,
        mixup=0.2,
        cutmix=1.0,
    ),
}


def resolve_augmentation(
    policy: str,
    auto_augment: str | None = None,
    random_erasing: float | None = None,
    mixup: float | None = None,
    cutmix: float | None = None,
) -> AugmentationSettings:
    """Returns a policy with what the user set in place of its own.

    Raises:
        UserError: for an unknown policy, a probability outside of 0 to 1, or a negative alpha.
    """
    if policy not in POLICIES:
        raise UserError(f"--augmentation {policy}", ", ".join(POLICIES), "--augmentation light")
    if random_erasing is not None and not 0 <= random_erasing <= 1:
        raise UserError(f"--random_erasing {random_erasing:g}", "a probability from 0 to 1", "--random_erasing 0.25")
    for flag, value in (("--mixup", mixup), ("--cutmix", cutmix)):
        if value is not None and value < 0:
            raise UserError(f"{flag} {value:g}", "0 (off) or more", f"{flag} 0.2")
    given: dict[str, Any] = {
        "auto_augment": auto_augment,
        "random_erasing": random_erasing,
        "mixup": mixup,
        "cutmix": cutmix,
    }
    return dataclasses.replace(POLICIES[policy], **{name: value for name, value in given.items() if value is not None})


def varies(settings: AugmentationSettings) -> bool:
    """Tells whether a training picture looks different from visit to visit, mixing aside."""
    return dataclasses.replace(settings, mixup=0.0, cutmix=0.0, policy="none") != POLICIES["none"]


class ProcessorTransform:
    """The processor's own call on one picture: what `transformers.pipeline` feeds the model."""

    def __init__(self, image_processor: BaseImageProcessor):
        self.image_processor = image_processor

    def __call__(self, image: Picture) -> torch.Tensor:
        # A processor would have to guess which of an array's axes holds the channels.
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        return self.image_processor(images=picture, return_tensors="pt")["pixel_values"][0]


def build_eval_transform(image_processor: BaseImageProcessor) -> Transform:
    """Returns the transform of validation and test pictures: the processor's output, bit for bit."""
    return ProcessorTransform(image_processor)


def build_train_transform(image_processor: BaseImageProcessor, settings: AugmentationSettings) -> Transform:
    """Returns the transform of training pictures: random, of the size and scale that the processor gives.

    Args:
        image_processor (`BaseImageProcessor`):
            The checkpoint's own.
        settings (`AugmentationSettings`):
            What to vary; mixup and CutMix are left to the collator.

    Returns:
        `Callable`: turns an RGB picture, or its pixels of shape `(height, width, 3)`, into a float tensor of shape
        `(3, height, width)`. It draws from torch's global generator.
    """
    if not varies(settings):
        return build_eval_transform(image_processor)
    facts = processor_facts(image_processor)
    interpolation = InterpolationMode(facts.interpolation.name.lower())
    own = own_steps(facts, settings)
    steps: list[Callable] = [own.crop]
    if own.mirror is not None:
        steps.append(own.mirror)
    if settings.auto_augment != "none" or settings.rotation > 0:
        steps.append(functional.to_pil_image)  # these are several times faster on pictures than on tensors
        if settings.auto_augment != "none":
            steps.append(_auto_augment(settings.auto_augment, interpolation, facts.neutral_colour))
        if settings.rotation > 0:
            fill = list(facts.neutral_colour)
            steps.append(v2.RandomRotation(settings.rotation, InterpolationMode.BILINEAR, fill=fill))
        steps.append(functional.pil_to_tensor)
    if own.jitter is not None:
        steps.append(own.jitter)
    steps.append(PixelMap(facts))
    if own.erasing is not None:
        steps.append(own.erasing)
    return v2.Compose(steps)


class OwnSteps(NamedTuple):
    """The steps of a policy that draw, in the order in which they do, but for what works on PIL's pictures."""

    crop: FrameCrop
    mirror: Mirror | None
    jitter: ColourJitter | None
    erasing: Erasing | None


def own_steps(facts: ProcessorFacts, settings: AugmentationSettings) -> OwnSteps:
    """Returns the steps of a policy, whether they are taken here or on a device; `None` for those it does without."""
    return OwnSteps(
        FrameCrop(facts, settings.crop_scale, settings.crop_ratio),
        Mirror(settings.flip) if settings.flip > 0 else None,
        ColourJitter(settings.colour_jitter) if settings.colour_jitter > 0 else None,
        Erasing(settings.random_erasing) if settings.random_erasing > 0 else None,
    )


def _auto_augment(name: str, interpolation: InterpolationMode, fill: tuple[int, int, int]) -> Callable:
    # torchvision resamples PIL pictures here with nearest, bilinear or bicubic only.
    usable = interpolation if interpolation.value in ("nearest", "bilinear", "bicubic") else InterpolationMode.BILINEAR
    kinds = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}
    return kinds[name](interpolation=usable, fill=list(fill))
