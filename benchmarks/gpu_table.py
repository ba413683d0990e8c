"""What the records of a GPU say: the goals, and the table.

Knows records alone, and runs nothing. A record has `network`, `task` and either `rate` or `not_measured`, a reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gpu_plan as plan
from written_table import table_head, table_row

OF_LIMIT, OF_BARE, OF_TIMM, WAIT = 0.8, 0.95, 1.0, 0.05
ON_CPU = "measured on CPU: not a GPU figure"
TRAINING_COLUMNS = (
    "network",
    "pixels",
    "ours",
    "bare loop",
    "timm",
    "of the bare loop",
    "of timm",
    "wait for the loader",
    "`data_wait_share`",
    "peak memory, ours (bare loop)",
)
EXTRACTION_COLUMNS = (
    "network",
    "ours",
    "views",
    "bare inference",
    "decoding ceiling",
    "of the slower",
    "decoding, s",
    "features, s",
    "kept",
    "peak memory",
)

HEAD = """# Training and extraction on a GPU

Networks of transformers, with random weights and a new head, on made-up JPEGs of {width}x{height} pixels in {classes}
classes ({train} for training, {other} for validation, as many for the test), which lie in the system's memory. Images
a second throughout.

- **ours, training**: `finetune.py --strategy full` as a user runs it (pictures decoded once, `light` augmentation, our
  defaults for workers and layout; bfloat16, batches of {batch}, no evaluation between epochs), the steps after a
  warm-up of {warm_up}.
- **ours, extraction**: `--strategy feature-extraction` from the JPEG files, nothing kept before: images (views of
  training pictures, and validation pictures) over the seconds in which pictures are decoded, each once for all its
  views, and the frozen network's features are computed, the search for the cut included.
- **bare loop**: the same network, batch, precision, layout, fused AdamW and clipping, on random pictures that lie on
  the GPU; once before ours and once after it. **bare inference**: the same without training, batches of
  {inference_batch}.
- **decoding ceiling**: all cores decode JPEGs and resize them to the network's square with Pillow, which ours decodes
  with too, and do nothing else. Each picture counts once; extraction decodes once for several views.
- **timm**: timm as a library, since its benchmark script is not installed with it: its network of that name, its task
  and AdamW, random pictures on the GPU, channels-last, bf16 autocast, cuDNN's kernels tried out, no clipping.
- **wait for the loader**: the share of the measured steps in which the training waited for the loader's next batch.
  The run's own `data_wait_share` is of all its steps, the first included, and also counts what the copy of a batch to
  the GPU waits for; it is shown beside and not judged.
"""


@dataclass(frozen=True)
class Goal:
    """One goal for one network."""

    network: str
    text: str
    measured: float | None
    """`None` where something that it needs was not measured."""
    holds: bool | None
    """`None` where it is not judged."""


def record_of(records: Sequence[Mapping], network: str, task: str) -> Mapping:
    """Returns what is known about a task; nothing where it was not tried."""
    found = [record for record in records if (record["network"], record["task"]) == (network, task)]
    return found[-1] if found else {}


def rate_of(records: Sequence[Mapping], network: str, task: str) -> float | None:
    """Returns images a second; of the bare loop the mean of both times."""
    tasks = (plan.BARE, plan.BARE_AGAIN) if task == plan.BARE else (task,)
    rates = [r["rate"] for name in tasks if "rate" in (r := record_of(records, network, name))]
    return sum(rates) / len(rates) if rates else None


def ratio(value: float | None, to: float | None) -> float | None:
    """Returns a ratio, where both are known."""
    return None if value is None or to is None else value / to


def slower_limit(records: Sequence[Mapping], network: str) -> float | None:
    """Returns the slower of bare inference and the decoding ceiling, where both are known."""
    limits = [rate_of(records, network, task) for task in (plan.INFERENCE, plan.DECODING)]
    known = [limit for limit in limits if limit is not None]
    return min(known) if len(known) == len(limits) else None


def goals(records: Sequence[Mapping], on_gpu: bool) -> list[Goal]:
    """Judges the networks that were measured; on a CPU nothing is judged.

    Args:
        records (`Sequence[Mapping]`):
            Of all networks.
        on_gpu (`bool`):
            Whether a GPU did the work.
    """
    found = []
    for name in _networks(records):
        training = rate_of(records, name, plan.TRAINING)
        extraction = ratio(rate_of(records, name, plan.EXTRACTION), slower_limit(records, name))
        of_bare = ratio(training, rate_of(records, name, plan.BARE))
        of_timm = ratio(training, rate_of(records, name, plan.TIMM))
        wait = record_of(records, name, plan.TRAINING).get("loader_wait_share")
        checks = (
            (f"extraction, at least {OF_LIMIT:g} of the slower limit", extraction, lambda value: value >= OF_LIMIT),
            (f"training, at least {OF_BARE:g} of the bare loop", of_bare, lambda value: value >= OF_BARE),
            ("training, no slower than timm", of_timm, lambda value: value >= OF_TIMM),
            (f"wait for the loader, under {WAIT:.0%}", wait, lambda value: value < WAIT),
        )
        for text, value, test in checks:
            found.append(Goal(name, text, value, bool(test(value)) if on_gpu and value is not None else None))
    return found


def table(report: Mapping) -> str:
    """Returns the whole file from `machine`, `size`, `records`, `command`, `date` and `minutes`."""
    records, size = report["records"], report["size"]
    on_gpu = report["machine"]["gpu_bytes"] is not None and not report["smoke"]
    width, height = size["picture"]
    train, other = (size["classes"] * size[f"{split}_per_class"] for split in ("train", "other"))
    lines = [HEAD.format(width=width, height=height, train=train, other=other, **_without(size, "picture"))]
    lines += [] if on_gpu else [f"**{ON_CPU}; goals are not judged.**", ""]
    lines += ["## Training", ""]
    lines += table_head(*TRAINING_COLUMNS)
    lines += [_training_row(records, network) for network in report["networks"]]
    lines += ["", "## Extraction", ""]
    lines += table_head(*EXTRACTION_COLUMNS)
    lines += [_extraction_row(records, network) for network in report["networks"]]
    lines += ["", "## Goals", "", *table_head("network", "goal", "measured", "holds")]
    lines += [_goal_row(goal, on_gpu) for goal in goals(records, on_gpu)]
    missing = [record for record in records if "not_measured" in record]
    if missing:
        lines += ["", "## Not measured", ""]
        lines += [f"- {record['network']}, {record['task']}: {record['not_measured']}" for record in missing]
    return "\n".join([*lines, "", _lab_note(report)]) + "\n"


def _networks(records: Sequence[Mapping]) -> list[str]:
    names = {record["network"] for record in records}
    return [network.name for network in plan.NETWORKS if network.name in names]


def _training_row(records: Sequence[Mapping], network: Mapping) -> str:
    name = network["name"]
    ours, bare = record_of(records, name, plan.TRAINING), record_of(records, name, plan.BARE)
    rates = {task: rate_of(records, name, task) for task in (plan.TRAINING, plan.BARE, plan.TIMM)}
    both = [r["rate"] for task in (plan.BARE, plan.BARE_AGAIN) if "rate" in (r := record_of(records, name, task))]
    spread = f" ({both[0]:.0f}, {both[1]:.0f})" if len(both) > 1 else ""
    cells = [
        str(network["pixels"]),
        _number(rates[plan.TRAINING]),
        _number(rates[plan.BARE]) + spread,
        _number(rates[plan.TIMM]),
        _number(ratio(rates[plan.TRAINING], rates[plan.BARE]), 3),
        _number(ratio(rates[plan.TRAINING], rates[plan.TIMM]), 3),
        _percent(ours.get("loader_wait_share")),
        _percent(ours.get("data_wait_share")),
        f"{_gigabytes(ours.get('peak_bytes'))} ({_gigabytes(bare.get('peak_bytes'))})",
    ]
    return table_row(name, *cells)


def _extraction_row(records: Sequence[Mapping], network: Mapping) -> str:
    name = network["name"]
    ours = record_of(records, name, plan.EXTRACTION)
    cells = [
        _number(ours.get("rate")),
        _number(ours.get("views")),
        _number(rate_of(records, name, plan.INFERENCE)),
        _number(rate_of(records, name, plan.DECODING)),
        _number(ratio(ours.get("rate"), slower_limit(records, name)), 3),
        _number(ours.get("decoding_seconds"), 1),
        _number(ours.get("build_seconds"), 1),
        _gigabytes(ours.get("bytes")),
        _gigabytes(ours.get("peak_bytes")),
    ]
    return table_row(name, *cells)


def _goal_row(goal: Goal, on_gpu: bool) -> str:
    measured = "-" if goal.measured is None else f"{goal.measured:.3f}"
    verdict = {True: "yes", False: "**no**", None: "not measured"}[goal.holds] if on_gpu else "not judged"
    return f"| {goal.network} | {goal.text} | {measured} | {verdict} |"


def _lab_note(report: Mapping) -> str:
    machine = report["machine"]
    hardware, versions, code = machine["hardware"], machine["versions"], machine["code"]
    gpus = ", ".join(hardware["accelerators"]) or "no GPU"
    memory = (
        "" if machine["gpu_bytes"] is None else f" ({machine['gpu_bytes'] / 2**30:.0f} GiB, CUDA {machine['cuda']})"
    )
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "accelerate", "timm", "pillow"))
    state = "" if code["commit"] is None else f"{code['commit'][:9]}{', with changes' if code['dirty'] else ''}"
    workers = sorted({r["arguments"]["dataloader_num_workers"] for r in report["records"] if "arguments" in r})
    bf16 = sorted({str(r["arguments"]["bf16"]) for r in report["records"] if "arguments" in r})
    return (
        f"Hardware: {gpus}{memory}; {hardware['processor']}, {hardware['cores']} cores. Versions: {used}. "
        f"Ours ran with {', '.join(map(str, workers)) or 'no'} workers of the loader, bf16: {', '.join(bf16) or '-'}. "
        f"Command: `{report['command']}`, {report['minutes']:.1f} minutes in all. Date: {report['date']}. "
        f"Code: {state or 'unknown, no git checkout'}."
    )


def _without(values: Mapping, name: str) -> dict:
    return {key: value for key, value in values.items() if key != name}


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _gigabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e9:.1f} GB"
