"""Ours and its peers side by side: time and accuracy of plain Trainer, fastai, timm, and the limits of this machine.

Usage:
    pip install -e ".[benchmarks]"
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/peers.py [--rounds 3] [--only TEXT] [--table_only]

Every run is a process of its own, and the contenders of a row run one after the other in every round (A B A B). On a
machine without a GPU that nothing else uses: hours. Finished runs are kept in `benchmarks/results/peers.jsonl` and not
repeated, so that the script can be stopped and started again; the table is `benchmarks/results/peers.md`. A smoke test
(`--epochs 1 --max_images 40`) writes both into the scratch folder. A peer that is not installed is left out.
"""

import argparse
import compileall
import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import peer_plan as plan
from peer_files import SCRATCH, Files, read_files, shared_files
from peer_table import table
from pipeline_runs import ROOT, add_record, code_version, computed_in, read_records

RESULTS = ROOT / "benchmarks" / "results"
COMMAND = "HF_TRANSFER_ASSETS=path/to/assets python benchmarks/peers.py"


class FailedRun(Exception):
    """A contender that ended with an error; its words are in the log."""


def run_contender(run: plan.Run, assets: Path, data: Path, scratch: Path) -> dict:
    """Runs one contender and returns its record."""
    from hf_transfer.environment import hardware, package_versions

    out = scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    files, load, started = read_files(data), os.getloadavg()[0], datetime.now(UTC)
    checkpoint = assets / "checkpoints" / run.row.checkpoint
    measure = _run_ours if run.contender.is_ours else _run_peer
    facts = measure(run, checkpoint, data, files, out, scratch)
    shutil.rmtree(out)
    return {
        "row": run.row.name,
        "contender": run.contender.name,
        "round": run.round,
        "seed": run.seed,
        "epochs": run.epochs,
        "of_epochs": run.of_epochs,
        **facts,
        "images": files.sizes(),
        "files": files.fingerprint,
        "hardware": hardware(1),
        "versions": package_versions() | {"fastai": _version_of("fastai")},
        "load": round(load, 2),
        "date": started.isoformat()[:10],
        "started": started.isoformat(timespec="seconds"),
        "code": code_version(),
    }


def _run_peer(run: plan.Run, checkpoint: Path, data: Path, files: Files, out: Path, scratch: Path) -> dict:
    """Runs a peer or a limit; its test predictions are judged here, by the list of files."""
    from hf_transfer.training.kept_views import DEFAULT_VIEWS

    command = plan.peer_command(run, checkpoint, data, out, DEFAULT_VIEWS)
    seconds, to_end = _timed(command, out / "logits.npy", scratch / "last.log")
    facts = json.loads((out / "result.json").read_text(encoding="utf-8"))
    logits = np.load(out / "logits.npy")
    own_labels = run.contender.task != "inference"
    accuracy = float((logits.argmax(1) == np.array(files.labels("test"))).mean()) if own_labels else None
    return {"seconds": seconds, "seconds_to_end": to_end, "accuracy": accuracy, **facts}


def _run_ours(run: plan.Run, checkpoint: Path, data: Path, files: Files, out: Path, scratch: Path) -> dict:
    """Runs ours: "warm" on the caches that "cold" left, which it makes first where they are gone; others on none."""
    warm = run.contender.name == plan.OURS_WARM
    cache = scratch / "cache" / "-".join([*run.row.name.split("/"), str(run.round), str(run.epochs)])
    command = plan.our_command(run, checkpoint, files.folder, out, cache)
    if warm and not cache.exists():
        _timed(command, out / "run" / "metrics.json", scratch / "last.log")
        shutil.rmtree(out)
        out.mkdir()
    elif not warm:
        shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)  # a run that keeps nothing would not make it
    seconds, to_end = _timed(command, out / "run" / "metrics.json", scratch / "last.log")
    if run.contender.name != plan.OURS_COLD:
        shutil.rmtree(cache)
    report = json.loads((out / "run" / "run.json").read_text(encoding="utf-8"))
    return {
        "seconds": seconds,
        "seconds_to_end": to_end,
        "accuracy": report["evaluation"]["test"]["metrics"]["accuracy"],
        "validation_accuracy": report["evaluation"]["validation"]["metrics"]["accuracy"],
        **json.loads((out / "clock.json").read_text(encoding="utf-8")),
        "precision": computed_in(report["decisions"]).removesuffix(", channels-last").removesuffix(" autocast"),
        "note": cache_note(report["training"]["cache"]),
        "stages": report["seconds"],
        "cache": report["training"]["cache"],
    }


def cache_note(phases: list[dict]) -> str:
    """Says in how many phases of a run of ours frozen layers were computed once; `auto` may decide against it."""
    cached = sum(phase["cached"] for phase in phases)
    return f"cached in {cached} of {len(phases)} phases" if phases else ""


def _timed(command: list[str], predictions: Path, log: Path) -> tuple[float, float]:
    """Runs a command; returns the seconds until its predictions were on the disk, and until it ended."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with log.open("w", encoding="utf-8") as file:
        start = time.time()
        exit_code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
        end = time.time()
    if exit_code != 0:
        raise FailedRun(f"exit code {exit_code}: {' '.join(command)}\n{log.read_text(encoding='utf-8')[-2000:]}")
    return round(predictions.stat().st_mtime - start, 2), round(end - start, 2)


def _version_of(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    args = read_arguments()
    smoke = args.epochs is not None or args.max_images is not None
    name = f"smoke-{args.epochs or 'all'}-epochs-{args.max_images or 'all'}-images" if smoke else "peers"
    records = (args.scratch if smoke else RESULTS) / f"{name}.jsonl"
    missing = sorted({c.package for cs in plan.CONTENDERS.values() for c in cs if c.package and c.missing()})

    def write() -> None:
        records.with_suffix(".md").write_text(table(read_records(records), missing, COMMAND), encoding="utf-8")

    args.scratch.mkdir(parents=True, exist_ok=True)
    # As pip did with the peers when it installed them.
    compileall.compile_dir(ROOT / "hf_transfer", quiet=1)
    done = {(r["row"], r["contender"], r["round"], r["epochs"]) for r in read_records(records)}
    for run in [] if args.table_only else plan.planned_runs(args.rounds, args.full_rounds, args.epochs):
        if run.key in done or args.only not in run.name or run.contender.missing():
            continue
        print(f"=== {datetime.now(UTC):%H:%M:%S} {run.name}, {run.epochs} epochs", flush=True)
        assets = Path(os.environ["HF_TRANSFER_ASSETS"])
        data = shared_files(assets / "datasets" / f"{run.row.dataset}.tar", args.scratch, args.max_images)
        record = run_contender(run, assets, data, args.scratch) | {"accuracy_only": args.accuracy_only}
        print(f"    {record['seconds']:.1f} s, accuracy {record['accuracy']}", flush=True)
        add_record(records, record)
        write()
    write()
    print(f"{records.with_suffix('.md')} is written.")


def read_arguments() -> Any:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run only those whose name holds this text")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run")
    parser.add_argument("--full_rounds", type=int, default=1, help="rounds that slow contenders run in full")
    words = "leave the times of these runs out of the table, as on another machine than the rest of their row"
    parser.add_argument("--accuracy_only", action="store_true", help=words)
    parser.add_argument("--epochs", type=int, help="for a smoke test: epochs of every run")
    parser.add_argument("--max_images", type=int, help="for a smoke test: pictures of each split")
    parser.add_argument("--table_only", action="store_true", help="write the table and run nothing")
    parser.add_argument("--scratch", type=Path, default=SCRATCH, help="folder for pictures, caches and runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
