"""Measures the memory of real runs: by strategy beside the estimate printed before a run, and by number of pictures.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/memory.py [--only strategies|pictures]

Each run is `finetune.py` in a process of its own, whose anonymous memory is looked at all the while
(`memory_watch.py`); what is mapped from the caches is not in it. Runs that `benchmarks/results/memory.jsonl` holds are
not made again: remove the file to begin anew. The table is `benchmarks/results/memory.md` (`memory_table.py`).

Our commands let glibc keep what is freed, so that a process also holds the gaps between what lives. By strategy, runs
are therefore made with glibc's own habit too, where large blocks go back at once: their peak is what the run needs.
"""

import argparse
import csv
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from memory_table import table
from memory_watch import Watched, watch
from pipeline_runs import ROOT, add_record, code_version, computed_in, read_records

RESULTS = Path(__file__).resolve().parent / "results"
STRATEGIES = ("feature-extraction", "partial", "full")
PRECISIONS = {"float32": ("--bf16", "false"), "default": ()}
ALLOCATORS = {"kept": {}, "given back": {"MALLOC_TRIM_THRESHOLD_": "131072"}}
"""What becomes of freed memory; a user's word, glibc's own default in this case, stops us from keeping it."""
LINES = {"training": "What will be done", "cached": "cache: "}
SMALL = {"train": 96, "validation": 64, "test": 16}
ONCE = {"train": 500, "validation": 64, "test": 64}
REPEATS = (1, 10, 100)


@dataclass(frozen=True)
class Run:
    """One run of the pipeline."""

    part: str
    """`strategies` or `pictures`."""
    checkpoint: str
    strategy: str
    precision: str
    dataset: str
    repeats: int = 1
    allocator: str = "kept"

    @property
    def options(self) -> tuple[str, ...]:
        """What `finetune.py` is told beside the names."""
        if self.part == "strategies":
            # Evaluated once, when all steps are taken; a batch of 64 is evaluated at a time, as by default.
            steps = ("--max_steps", "12", "--eval_strategy", "steps", "--eval_steps", "12")
        else:
            steps = ("--max_steps", "20", "--eval_strategy", "steps", "--eval_steps", "20", "--decoded_cache", "on")
            steps += ("--cache", "on") if self.strategy == "feature-extraction" else ()
        return (*steps, *PRECISIONS[self.precision], "--check_usage", "false", "--disable_tqdm", "true")


def planned_runs() -> Iterator[Run]:
    """Returns the runs of both parts."""
    for checkpoint in ("mobilenet_v1_0.5_160", "vit_tiny_patch16_224", "mobilenet_v1_0.25_128"):
        for precision, allocator in (("default", "kept"), ("default", "given back"), ("float32", "given back")):
            for strategy in STRATEGIES:
                yield Run("strategies", checkpoint, strategy, precision, "clothing10", allocator=allocator)
    for repeats, strategy in itertools.product(REPEATS, ("feature-extraction", "full")):
        yield Run("pictures", "mobilenet_v1_0.25_128", strategy, "default", "rbc12", repeats)


def some_pictures(folder: Path, count: int) -> list[Path]:
    """Returns pictures of a folder of class folders, from each class in turn."""
    classes = [sorted(child.iterdir()) for child in sorted(folder.iterdir()) if child.is_dir()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*classes))
    return [path for path in in_turn if path is not None][:count]


def write_list(path: Path, pictures: Mapping[str, Sequence[Path]], repeats: int) -> int:
    """Writes a table of pictures that our loader reads; returns the number of training pictures.

    Args:
        path (`Path`):
            The CSV file.
        pictures (`Mapping[str, Sequence[Path]]`):
            Pictures by split; the folder that a picture is in is called by its label.
        repeats (`int`):
            How often each training picture is listed.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "split"))
        for split, files in pictures.items():
            listed = itertools.chain.from_iterable(itertools.repeat(files, repeats if split == "train" else 1))
            writer.writerows((file, file.parent.name, split) for file in listed)
    return repeats * len(pictures["train"])


def measure(run: Run, assets: Path, scratch: Path) -> dict:
    """Makes a run and returns what was seen of it."""
    from hf_transfer.data.archives import unpack

    pictures = unpack(assets / "datasets" / f"{run.dataset}.tar") / run.dataset / "data"
    wanted = SMALL if run.part == "strategies" else ONCE
    rows = scratch / "pictures.csv"
    count = write_list(
        rows, {name: some_pictures(pictures / name, size) for name, size in wanted.items()}, run.repeats
    )
    out, cache = scratch / "run", scratch / "cache"
    for folder in (out, cache):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, str(ROOT / "finetune.py"), "--model", str(assets / "checkpoints" / run.checkpoint)]
    command += ["--dataset", str(rows), "--strategy", run.strategy, *run.options]
    command += ["--cache_dir", str(cache), "--output_dir", str(out)]
    # Tables are kept by `datasets` as well.
    environment = {"HF_DATASETS_CACHE": str(scratch / "tables"), **ALLOCATORS[run.allocator]}
    seen = watch(command, LINES, {"saving": out / "model"}, environment)
    report = json.loads((out / "run.json").read_text(encoding="utf-8"))
    decisions = {decision["name"]: decision for decision in report["decisions"]}
    return {
        **asdict(run),
        "pictures": count,
        **figures(seen),
        **estimate_of(decisions["memory"]),
        "computed_in": computed_in(report["decisions"]),
        "cached": any(phase["cached"] for phase in report["training"]["cache"]),
        "versions": report["versions"],
        "hardware": report["hardware"],
        "date": report["started"][:10],
        "code": code_version(),
    }


def figures(seen: Watched) -> dict[str, int]:
    """Returns what a table needs of a process that was watched."""
    return {
        "before": seen.last_before("training"),
        "training": seen.highest("training", "saving"),
        "whole": seen.highest(),
        "resident": seen.highest_resident,
    }


def estimate_of(decision: Mapping[str, str]) -> dict[str, int]:
    """Reads the estimate in the decision table: all of it, and the weights, which are there before the training."""
    words = decision["value"].split()
    return {"estimate": _bytes(*words[1:3]), "estimated_weights": dict(_parts(decision["reason"]))["weights"]}


def _parts(reason: str) -> Iterator[tuple[str, int]]:
    for part in reason.split(";")[0].split(", "):
        name, number, unit = part.rsplit(" ", 2)
        yield name, _bytes(number, unit)


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * {"MB": 1e6, "GB": 1e9}[unit])


def remaining(runs: Iterable[Run], records: Sequence[Mapping]) -> list[Run]:
    """Returns the runs that no record is of."""
    made = [{name: record[name] for name in Run.__dataclass_fields__} for record in records]
    return [run for run in runs if asdict(run) not in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("strategies", "pictures"), help="one part of the runs")
    args = parser.parse_args()
    assets, path = Path(os.environ["HF_TRANSFER_ASSETS"]), RESULTS / "memory.jsonl"
    for run in remaining(planned_runs(), read_records(path)):
        if args.only in (None, run.part):
            with tempfile.TemporaryDirectory() as scratch:
                record = measure(run, assets, Path(scratch))
            add_record(path, record)
            print(json.dumps(record), flush=True)
    (RESULTS / "memory.md").write_text(table(read_records(path)), encoding="utf-8")


if __name__ == "__main__":
    main()
