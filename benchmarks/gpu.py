"""Training and extraction on one GPU, beside the limits of the machine and timm: one command, under ten minutes.

Usage:
    python benchmarks/gpu.py [--minutes 9] [--out FILE.md] [--smoke]

Needs no network, no data and no checkpoints: pictures are made up, weights are random. After every network it writes
the table, by default `benchmarks/results/gpu.md`, and beside it all records, as `.json`. What no longer fits into the
time is left out and named in the table. `--smoke` runs everything on the CPU with tiny networks, in a few steps; it
shows that the command works, and measures nothing. Works in a checkout where hf_transfer itself is not installed.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import gpu_plan as plan
from gpu_pictures import decoding_rate, make_pictures
from gpu_table import table
from pipeline_runs import read_records

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "gpu.md"
SPARE = 5.0
"""Seconds at the end that nothing is planned for."""


class Benchmark:
    """One run of the command: its clock, its records and its files.

    Args:
        args (`argparse.Namespace`):
            The command line.
        machine (`dict`):
            What machine this is.
        start (`float`):
            When the command began, by `time.monotonic`.
    """

    def __init__(self, args: argparse.Namespace, machine: dict, start: float):
        self.args, self.machine, self.start = args, machine, start
        self.size = plan.SMOKE if args.smoke else plan.FULL
        self.networks = [network for network in plan.NETWORKS if args.only.lower() in network.name.lower()]
        self.log = args.scratch / "gpu.log"
        self.child_records = args.scratch / "records.jsonl"
        self.records: list[dict] = []
        self.expected = dict(plan.EXPECTED)

    @property
    def left(self) -> float:
        """Seconds until the command has to end."""
        return self.start + 60 * self.args.minutes - SPARE - time.monotonic()

    def run(self) -> None:
        """Measures everything, network by network."""
        self.args.scratch.mkdir(parents=True, exist_ok=True)
        for file in (self.log, self.child_records):
            file.unlink(missing_ok=True)
        pictures = make_pictures(self.args.scratch, self.size)
        print(f"{pictures.name}: there after {time.monotonic() - self.start:.0f} s", flush=True)
        files = sorted((pictures / "train").rglob("*.jpg"))
        sides = {plan.pixels_of(network, self.args.smoke) for network in self.networks}
        ceilings = {side: decoding_rate(files, side) for side in sorted(sides)}
        for network in self.networks:
            ceiling = ceilings[plan.pixels_of(network, self.args.smoke)]
            self.records.append({"network": network.name, "task": plan.DECODING, **ceiling})
            self.measure(network, pictures)
            self.write()

    def measure(self, network: plan.Network, pictures: Path) -> None:
        """Measures one network: a process for its tasks, and another for those that a failed one has left."""
        todo = list(plan.TASKS)
        while todo:
            tasks, skipped = plan.affordable(todo, self.left, self.expected)
            for task in skipped:
                needed = self.expected[task] + self.expected[plan.START]
                self.note(
                    network, task, f"skipped: {max(0.0, self.left):.0f} s were left, it takes about {needed:.0f}"
                )
            if not tasks:
                return
            print(f"{network.name}: {', '.join(tasks)}; {self.left:.0f} s left", flush=True)
            problem = self.run_process(network, tasks, pictures)
            done = read_records(self.child_records)
            self.child_records.unlink(missing_ok=True)
            self.records += done
            self.expected = plan.learned(self.expected, self.records)
            todo = [task for task in tasks if task not in {record["task"] for record in done}]
            if todo:
                self.note(network, todo.pop(0), problem or "its process ended without a word")

    def run_process(self, network: plan.Network, tasks: Sequence[str], pictures: Path) -> str | None:
        """Runs tasks of a network in a process of their own; returns what went wrong."""
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu_network.py"), "--network", network.name]
        command += ["--tasks", *tasks, "--pictures", str(pictures), "--scratch", str(self.args.scratch)]
        command += ["--records", str(self.child_records), *(["--smoke"] if self.args.smoke else [])]
        with self.log.open("a", encoding="utf-8") as log:
            begin = log.tell()
            try:
                code = subprocess.run(
                    command, stdout=log, stderr=log, env=_environment(self.args.smoke), timeout=max(1.0, self.left)
                ).returncode
            except subprocess.TimeoutExpired:
                return f"cut off: the time of {self.args.minutes:g} minutes was over"
        if code == 0:
            return None
        return f"failed with exit code {code}: {_last_words(self.log.read_bytes()[begin:])}"

    def note(self, network: plan.Network, task: str, reason: str) -> None:
        """Records why something was not measured."""
        print(f"{network.name}, {task}: {reason}", flush=True)
        self.records.append({"network": network.name, "task": task, "not_measured": reason})

    def write(self) -> None:
        """Writes the table and the records."""
        report = {
            "machine": self.machine,
            "smoke": self.args.smoke,
            "size": dataclasses.asdict(self.size),
            "networks": [
                {"name": network.name, "pixels": plan.pixels_of(network, self.args.smoke)} for network in self.networks
            ],
            "records": self.records,
            "command": self.args.command,
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "minutes": (time.monotonic() - self.start) / 60,
        }
        self.args.out.parent.mkdir(parents=True, exist_ok=True)
        self.args.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        self.args.out.write_text(table(report), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 where something failed, and 2 where there is no GPU to measure."""
    start = time.monotonic()
    args = read_arguments(argv)
    machine = ask_machine(args.smoke)
    if machine["gpu_bytes"] is None and not args.smoke:
        print("There is no GPU that torch can use; --smoke tries the command out on the CPU.", file=sys.stderr)
        return 2
    benchmark = Benchmark(args, machine, start)
    benchmark.run()
    print(args.out.read_text(encoding="utf-8"))
    print(f"Written to {args.out} and {args.out.with_suffix('.json')}; what was printed is in {benchmark.log}.")
    return int(any("failed" in record.get("not_measured", "") for record in benchmark.records))


def ask_machine(smoke: bool) -> dict:
    """Returns what machine this is, by a process that imports torch.

    On a fresh machine that import is slow the first time, and would else count against the first network.
    """
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_network.py"), "--machine"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=_environment(smoke))
    return json.loads(answer.stdout.splitlines()[-1])


def _last_words(said: bytes) -> str:
    """Returns the error that a command of ours told its user, or else the end of a traceback."""
    lines = said.decode("utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
    return next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])


def _environment(smoke: bool) -> dict[str, str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return environment | {"CUDA_VISIBLE_DEVICES": ""} if smoke else environment


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; `command` is how it was called."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="what does not fit into this is left out")
    parser.add_argument("--only", default="", help="only networks whose name holds this text")
    parser.add_argument("--out", type=Path, help="the table; records go beside it, as .json")
    parser.add_argument("--smoke", action="store_true", help="tiny networks and a few steps, on the CPU")
    default = Path(tempfile.gettempdir()) / "hf_transfer_gpu"
    parser.add_argument("--scratch", type=Path, default=default, help="folder for pictures, checkpoints and caches")
    args = parser.parse_args(words)
    if args.out is None:
        args.out = args.scratch / "smoke.md" if args.smoke else RESULT
    # Not the folders: they are of this machine.
    said = [f"--minutes {args.minutes:g}", *(["--smoke"] if args.smoke else [])]
    args.command = " ".join(["python benchmarks/gpu.py", *said, *([f"--only {args.only}"] if args.only else [])])
    return args


if __name__ == "__main__":
    sys.exit(main())
