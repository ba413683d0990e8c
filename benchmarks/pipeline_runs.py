"""One run of `finetune.py` in a process of its own, and what its report says.

Shared by the benchmarks of accuracy.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hf_transfer.environment import hardware, package_versions

UNRECORDED = "before 84c98a9"
"""Commits were not recorded then; 84c98a9 changed training pixels slightly, and kept two views of each picture."""
ROOT = Path(__file__).resolve().parents[1]


def run_pipeline(assets: Path, checkpoint: str, dataset: str, options: Sequence[str]) -> dict:
    """Fine-tunes a shared checkpoint on a shared data set and returns the facts of the run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "finetune.py"), *options]
        command += ["--model", str(assets / "checkpoints" / checkpoint)]
        command += ["--dataset", str(assets / "datasets" / f"{dataset}.tar")]
        command += ["--output_dir", str(Path(folder) / "run"), "--disable_tqdm", "true"]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        report = json.loads((Path(folder) / "run" / "run.json").read_text(encoding="utf-8"))
    counts = report["data"]["class_counts"]["test"]
    return {
        "test": report["evaluation"]["test"]["metrics"],
        "validation": report["evaluation"]["validation"]["metrics"],
        "interval": report["evaluation"]["test"]["accuracy_interval"],
        "majority": max(counts) / sum(counts),
        "computed_in": computed_in(report["decisions"]),
        "epochs": report["training"]["epochs"],
        "training_seconds": report["seconds"]["training"],
        "seconds": round(seconds, 1),
        "hardware": report["hardware"],
        "versions": report["versions"],
        "date": report["started"][:10],
        "code": code_version(),
    }


def computed_in(decisions: Sequence[dict]) -> str:
    """Returns the precision that a run decided on, with the layout of its pictures."""
    [value] = [decision["value"] for decision in decisions if decision["name"] == "precision"]
    return value


def made_here() -> dict:
    """Returns hardware, versions, date and code of what this process measures, as records have them."""
    return {
        "hardware": hardware(1),
        "versions": package_versions(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "code": code_version(),
    }


def read_records(path: Path) -> list[dict]:
    """Reads the finished runs that a file holds, a line each; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def add_record(path: Path, record: dict) -> None:
    """Adds a finished run to a file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def code_version() -> str:
    """Returns the commit of the code that runs, with a mark where files other than results differ from it."""
    commit = _git("rev-parse", "--short", "HEAD")
    return f"{commit}-dirty" if _git("status", "--porcelain", "--", ".", ":!benchmarks/results") else commit


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def read_arguments(doc: str) -> argparse.Namespace:
    """Reads the command line of a script whose runs are planned: `only` and `table_only`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--only", default="", help="run only those whose name holds this text")
    parser.add_argument("--table_only", action="store_true", help="write the table and run nothing")
    return parser.parse_args()


def make_planned(
    doc: str,
    path: Path,
    names: Sequence[str],
    planned: Sequence[tuple],
    measure: Callable[..., dict],
    write_table: Callable[[list[dict]], None],
) -> None:
    """Makes the planned runs that a file of records lacks, as the command line has it, and the table after each.

    Args:
        doc (`str`):
            Of the script.
        path (`Path`):
            Records of finished runs, a line each.
        names (`Sequence[str]`):
            What the parts of a planned run are called in records.
        planned (`Sequence[tuple]`):
            The runs.
        measure (`Callable`):
            Takes the parts of a run and returns the rest of its record.
        write_table (`Callable`):
            Writes the table of all records.
    """
    args = read_arguments(doc)
    done = {tuple(record[name] for name in names) for record in read_records(path)}
    for run in [] if args.table_only else planned:
        title = "/".join(str(part) for part in run)
        if run in done or args.only not in title:
            continue
        print(f"=== {title}", flush=True)
        add_record(path, dict(zip(names, run, strict=True)) | measure(*run))
        write_table(read_records(path))
    write_table(read_records(path))


def spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation, as far as there are any."""
    text = f"{statistics.mean(values):.3f}"
    return f"{text} +- {statistics.stdev(values):.3f}" if len(values) > 1 else text


def with_error(values: Sequence[float]) -> str:
    """Returns the mean with its standard error, where there is one."""
    text = f"{statistics.mean(values):+.2f}"
    return f"{text} +- {statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else text


def lab_note(records: Sequence[dict]) -> str:
    """Returns hardware, versions and dates of a table's runs."""
    machines = sorted({f"{r['hardware']['processor']}, {r['hardware']['cores']} cores" for r in records})
    used = [r["versions"] for r in records]
    versions = sorted({", ".join(f"{name} {v[name]}" for name in ("torch", "transformers", "timm")) for v in used})
    dates = sorted({r["date"] for r in records})
    code = sorted({r.get("code", UNRECORDED) for r in records})
    return (
        f"Hardware: {'; '.join(machines)}. Versions: {'; '.join(versions)}. Dates: {', '.join(dates)}. "
        f"Code: {', '.join(code)}."
    )
