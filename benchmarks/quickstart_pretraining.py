"""Makes the quickstart checkpoint: a small conv net pretrained on pictures that are formulas, not photographs.

Usage:
    python benchmarks/quickstart_pretraining.py --output_dir hf_transfer/models/quickstart

Follows formula-driven supervised learning: a class is one set of parameters of a formula, its pictures are
perturbations of them, and the net learns to tell the formulas apart (Kataoka et al., "Pre-training without Natural
Images", arXiv:2101.08515, with fractals; Kataoka et al., "Replacing Labeled Real-image Datasets with Auto-generated
Contours", arXiv:2206.09132, with radial contours). Textures and pen strokes are families of our own in the same
spirit. No picture of a digit, a letter or any other thing is drawn on purpose, and no data are read.

Everything is drawn from one seed; the defaults are what made the checkpoint in this package.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification, ViTImageProcessor

from hf_transfer.environment import hardware, package_versions
from hf_transfer.models.weights import sha256_of_files

SIDE = 32
CANVAS = 4 * SIDE
"""Pictures are drawn four times too large and scaled down, for smooth edges."""


def draw_fractal(shape: np.random.Generator, instance: np.random.Generator) -> Image.Image:
    """Draws the attractor of an iterated function system (Barnsley 1988) by the chaos game."""
    count = int(shape.integers(2, 6))
    matrices = shape.uniform(-1, 1, (count, 2, 2))
    # Scaled to contract, so that the points stay in a bounded set.
    norms = np.linalg.norm(matrices, ord=2, axis=(1, 2), keepdims=True)
    matrices = matrices / norms * shape.uniform(0.4, 0.85, (count, 1, 1))
    shifts = shape.uniform(-1, 1, (count, 2))
    matrices = matrices * instance.uniform(0.9, 1.1, matrices.shape)
    shifts = shifts + instance.normal(0, 0.05, shifts.shape)
    weights = np.abs(np.linalg.det(matrices)) + 0.02
    particles = np.zeros((256, 2))
    steps = []
    for _ in range(28):
        choice = instance.choice(count, size=len(particles), p=weights / weights.sum())
        particles = np.einsum("nij,nj->ni", matrices[choice], particles) + shifts[choice]
        steps.append(particles)
    points = np.concatenate(steps[8:])
    low, high = points.min(0), points.max(0)
    scaled = (points - low) / np.maximum(high - low, 1e-6) * (CANVAS - 17) + 8
    pixels = np.zeros((CANVAS, CANVAS), dtype=np.uint8)
    columns, rows = scaled.astype(int).T
    pixels[rows, columns] = 255
    return Image.fromarray(pixels).filter(ImageFilter.MaxFilter(5))


def draw_contour(shape: np.random.Generator, instance: np.random.Generator) -> Image.Image:
    """Draws closed lines whose radius is a sum of cosines of the angle, one inside the other."""
    orders = shape.integers(1, 9, 4)
    heights = shape.uniform(0, 0.35, 4) * instance.uniform(0.85, 1.15, 4)
    phases = shape.uniform(0, 2 * math.pi, 4) + instance.normal(0, 0.1, 4)
    rings = int(shape.integers(1, 4))
    angle = np.linspace(0, 2 * math.pi, 120)
    radius = 1 + (heights[:, None] * np.cos(orders[:, None] * angle + phases[:, None])).sum(0)
    radius = radius / radius.max() * (CANVAS / 2 - 8)
    image = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    filled = shape.random() < 0.3
    for ring in range(rings):
        scale = 1 - ring / (rings + 0.5)
        line = np.stack([radius * scale * np.cos(angle), radius * scale * np.sin(angle)], 1) + CANVAS / 2
        if filled and ring == 0:
            draw.polygon([tuple(point) for point in line], fill=255)
        else:
            colour = 0 if filled and ring % 2 else 255
            draw.line([tuple(point) for point in line], fill=colour, width=_pen(instance), joint="curve")
    return image


def draw_texture(shape: np.random.Generator, instance: np.random.Generator) -> Image.Image:
    """Adds up plane waves of a few directions and frequencies."""
    count = int(shape.integers(2, 5))
    direction = shape.uniform(0, math.pi, count) + instance.normal(0, 0.05, count)
    frequency = shape.uniform(1, 7, count) * instance.uniform(0.92, 1.08, count)
    phase = instance.uniform(0, 2 * math.pi, count)
    height = shape.uniform(0.3, 1, count)
    grid = np.linspace(-0.5, 0.5, CANVAS)
    x, y = np.meshgrid(grid, grid)
    across = x[None] * np.cos(direction)[:, None, None] + y[None] * np.sin(direction)[:, None, None]
    waves = height[:, None, None] * np.sin(2 * math.pi * frequency[:, None, None] * across + phase[:, None, None])
    field = waves.sum(0)
    if shape.random() < 0.5:
        field = np.sign(field)
    return Image.fromarray(((field - field.min()) / np.ptp(field) * 255).astype(np.uint8))


def draw_strokes(shape: np.random.Generator, instance: np.random.Generator) -> Image.Image:
    """Draws a few smooth strokes of a pen through random points."""
    image = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    pen = _pen(instance)
    for _ in range(int(shape.integers(1, 4))):
        knots = shape.uniform(0.12, 0.88, (int(shape.integers(2, 6)), 2))
        knots = (knots + instance.normal(0, 0.035, knots.shape)) * CANVAS
        draw.line([tuple(point) for point in _smooth(knots)], fill=255, width=pen, joint="curve")
    return image


FAMILIES = {"fractal": draw_fractal, "contour": draw_contour, "texture": draw_texture, "strokes": draw_strokes}


def _pen(instance: np.random.Generator) -> int:
    return int(instance.integers(CANVAS // 26, CANVAS // 9))


def _smooth(knots: np.ndarray) -> np.ndarray:
    """Returns points on the Catmull-Rom spline through the knots."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, 12)[:, None]
    pieces = []
    for before, start, end, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        cubic = -before + 3 * start - 3 * end + after
        square = 2 * before - 5 * start + 4 * end - after
        pieces.append(0.5 * (2 * start + (end - before) * t + square * t**2 + cubic * t**3))
    return np.concatenate(pieces)


def make_pictures(classes: dict[str, int], per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Draws every class.

    Args:
        classes (`dict[str, int]`):
            Number of classes of each family.
        per_class (`int`):
            Pictures of each class.
        seed (`int`):
            Seed of everything.

    Returns:
        `tuple`: uint8 pictures of shape `(n, 1, 32, 32)`, class indices, and class names.
    """
    pictures, labels, names = [], [], []
    for family_index, (family, count) in enumerate(classes.items()):
        for number in range(count):
            names.append(f"{family}-{number:03d}")
            for picture in range(per_class):
                shape = np.random.default_rng([seed, family_index, number])
                instance = np.random.default_rng([seed, family_index, number, picture])
                image = FAMILIES[family](shape, instance).resize((SIDE, SIDE), Image.Resampling.BOX)
                pictures.append(np.asarray(image))
                labels.append(len(names) - 1)
    return torch.from_numpy(np.stack(pictures))[:, None], torch.tensor(labels), names


def vary(pictures: torch.Tensor) -> torch.Tensor:
    """Turns grey pictures into coloured, bent, blurred and noisy ones, scaled to -1 to 1.

    Args:
        pictures (`torch.Tensor` of shape `(n, 1, 32, 32)`):
            Grey levels from 0 to 255.

    Returns:
        `torch.Tensor` of shape `(n, 3, 32, 32)`
    """
    n = len(pictures)
    grey = pictures.float() / 255
    angle, scale = torch.randn(n) * 0.18, 0.75 + 0.45 * torch.rand(n)
    shear, stretch = torch.randn(n) * 0.12, 1 + 0.12 * torch.randn(n)
    rotation = torch.stack([angle.cos(), -angle.sin() + shear, angle.sin(), angle.cos()], 1).view(n, 2, 2)
    rotation[:, :, 0] *= stretch[:, None]
    theta = torch.cat([rotation / scale.view(n, 1, 1), torch.randn(n, 2, 1) * 0.12], 2)
    grid = F.affine_grid(theta, list(grey.shape), align_corners=False)
    grey = F.grid_sample(grey, grid, align_corners=False)
    # Half of the batch at a lower resolution, as small scans are.
    coarse = int(torch.randint(7, 17, ()))
    low = F.interpolate(grey[: n // 2], size=(coarse, coarse), mode="area")
    grey = torch.cat([F.interpolate(low, size=(SIDE, SIDE), mode="bilinear"), grey[n // 2 :]])
    ink, paper = torch.rand(n, 3, 1, 1), torch.rand(n, 3, 1, 1)
    # Two thirds without colour, either way round, with enough contrast to see.
    plain = torch.rand(n, 1, 1, 1) < 0.67
    ink, paper = torch.where(plain, ink[:, :1], ink), torch.where(plain, paper[:, :1], paper)
    faint = (ink - paper).abs().mean(1, keepdim=True) < 0.3
    paper = torch.where(faint, (ink + 0.5) % 1.0, paper)
    coloured = grey * ink + (1 - grey) * paper + 0.03 * torch.randn(n, 3, SIDE, SIDE)
    return coloured.clamp(0, 1) * 2 - 1


def build_model(names: list[str]) -> ConvNextV2ForImageClassification:
    """Returns the net with fresh weights: about a million parameters without its head."""
    config = ConvNextV2Config(
        image_size=SIDE,
        patch_size=2,
        num_stages=3,
        hidden_sizes=[40, 80, 160],
        depths=[2, 2, 4],
        drop_path_rate=0.05,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    return ConvNextV2ForImageClassification(config)


def pretrain(model: torch.nn.Module, pictures: torch.Tensor, labels: torch.Tensor, args: argparse.Namespace) -> float:
    """Trains the net to name the formula of each picture; returns the accuracy over the last hundred batches."""
    decay = [parameter for parameter in model.parameters() if parameter.squeeze().ndim > 1]
    rest = [parameter for parameter in model.parameters() if parameter.squeeze().ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": args.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=args.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, args.steps, pct_start=0.1)
    model.train().to(memory_format=torch.channels_last)
    recent, start = [], time.perf_counter()
    for step in range(args.steps):
        rows = torch.randint(len(labels), (args.batch_size,))
        pixels = vary(pictures[rows]).contiguous(memory_format=torch.channels_last)
        logits = model(pixel_values=pixels).logits
        loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent = [*recent[-99:], (logits.argmax(1) == labels[rows]).float().mean().item()]
        if step % 100 == 0 or step == args.steps - 1:
            seconds = time.perf_counter() - start
            print(f"step {step} loss {loss.item():.3f} accuracy {np.mean(recent):.3f} {seconds:.0f} s", flush=True)
    return float(np.mean(recent))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--per_class", type=int, default=120)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--weight_decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    for family, count in (("fractal", 80), ("contour", 80), ("texture", 40), ("strokes", 120)):
        parser.add_argument(f"--{family}", type=int, default=count, help=f"number of {family} classes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    start = time.perf_counter()
    pictures, labels, names = make_pictures(
        {family: getattr(args, family) for family in FAMILIES}, args.per_class, args.seed
    )
    print(f"{len(labels)} pictures of {len(names)} classes drawn in {time.perf_counter() - start:.0f} s", flush=True)
    model = build_model(names)
    accuracy = pretrain(model, pictures, labels, args)
    model.to(memory_format=torch.contiguous_format).eval().half().save_pretrained(args.output_dir)
    ViTImageProcessor(
        size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=Image.Resampling.BILINEAR,
    ).save_pretrained(args.output_dir)
    lineage = {
        "script": "benchmarks/quickstart_pretraining.py",
        "arguments": {key: value for key, value in vars(args).items() if key != "output_dir"},
        "pictures": len(labels),
        "classes": len(names),
        "training_accuracy": round(accuracy, 4),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "weights_sha256": sha256_of_files([args.output_dir / "model.safetensors"]),
        "versions": package_versions(),
        "hardware": hardware(1),
    }
    (args.output_dir / "lineage.json").write_text(json.dumps(lineage, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(lineage, indent=2))


if __name__ == "__main__":
    main()
