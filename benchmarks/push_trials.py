"""Hits every call of a push with every kind of fault, and counts how it ended.

Usage:
    python benchmarks/push_trials.py

The Hub is that of the tests (`tests/hub`), over real HTTP with the real client; large files go through LFS. Each trial
pushes a finished run of its own into a repository of its own while one call fails as asked: 401, 403, 404, 409, 412,
429 with Retry-After, 500, 502 (also as a page), 503, a cut connection, a slow answer; once, twice or for good; before
the request takes effect or after it. Looked at after each: exit code, messages, the run's files byte by byte, the
token, and every commit on main. Then the fault is gone and the same run is pushed again. Waits are not waited for, and
the models are compared in this process rather than in a new one, which a trial would spend most of its time on.
Writes `benchmarks/results/push_trials.md`.
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the Hub belongs to the tests
from tests.hub_server import HubServer  # noqa: E402

TABLE = ROOT / "benchmarks" / "results" / "push_trials.md"
ENDS = ("succeeded at once", "one message, then completed", "failed the trial")


def surroundings(hub: HubServer, home: str) -> None:
    """Points huggingface_hub to the Hub of the tests, before it is imported."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_"))]:
        del os.environ[name]
    os.environ |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": home,
        "HF_HUB_DISABLE_XET": "1",
        "no_proxy": "127.0.0.1,localhost",
    }
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def main() -> None:
    hub = HubServer()
    with tempfile.TemporaryDirectory() as name:
        surroundings(hub, f"{name}/home")
        rows, seconds = run_trials(hub, Path(name))
    hub.close()
    TABLE.write_text(format_table(rows, seconds), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


def run_trials(hub: HubServer, folder: Path) -> tuple[list[tuple[str, str, str, str]], float]:
    """Runs all trials; returns (call, fault, end, what went wrong) of each, and the seconds that they took."""
    from hf_transfer.publishing import push_proof
    from hf_transfer.publishing.reload_alone import answer
    from tests.publishing.finished_run import TOKEN, finish_run
    from tests.publishing.push_faults import CARD, all_cases

    push_proof._ask_both = lambda models, pictures, _: answer({"models": models, "pictures": pictures})  # type: ignore[assignment]
    os.environ["HF_TOKEN"] = TOKEN
    finished = finish_run(folder)
    (finished / "README.md").write_text(CARD, encoding="utf-8")
    time.sleep = lambda seconds: None  # type: ignore[assignment]
    start, rows = time.perf_counter(), []
    for number, case in enumerate(all_cases()):
        hub.reset()
        hub.add_user(TOKEN, "someone")
        run = Path(shutil.copytree(finished, folder / f"run-{number}", ignore=shutil.ignore_patterns("checkpoint-*")))
        end, wrong = trial(hub, case, run, f"someone/trial-{number}", TOKEN)
        rows.append((case.call, str(case), end, wrong))
        shutil.rmtree(run)
        if wrong:
            print(f"{case}: {wrong}", file=sys.stderr)
    return rows, time.perf_counter() - start


def trial(hub: HubServer, case, run: Path, repo_id: str, token: str) -> tuple[str, str]:
    """Pushes while a call fails, and again when it does not; returns how it ended, and what was not as it must be."""
    from hf_transfer.cli import main as command
    from tests.publishing.finished_run import contents
    from tests.publishing.push_faults import OPTIONS, check_completed, check_end

    before = contents(run)
    fault = hub.inject(case.call, case.kind, times=case.times, after=case.after, seconds=case.seconds)
    said, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            first = command(["push", str(run), "--repo-id", repo_id, *OPTIONS])
        assert fault.times in (0, None), "the fault was never met"
        assert token not in said.getvalue(), "the token was printed"
        check_end(hub, repo_id, run, before, first, errors.getvalue(), token)
        hub.faults.clear()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            assert command(["push", str(run)]) == 0, f"the next push did not complete: {errors.getvalue()[-300:]}"
        check_completed(hub, repo_id, run)
        assert contents(run) == before, "the run's files are not what they were"
    except Exception as error:  # a trial that fails is a row of the table
        return ENDS[2], f"{type(error).__name__}: {error}"
    return (ENDS[0] if first == 0 else ENDS[1]), ""


def format_table(rows: list[tuple[str, str, str, str]], seconds: float) -> str:
    """Returns the table, a line a call."""
    from hf_transfer.environment import hardware, package_versions

    total = Counter(end for _, _, end, _ in rows)
    lines = ["# Pushes hit by faults", ""]
    lines += [f"{len(rows)} trials: {', '.join(f'{total[end]} {end}' for end in ENDS)}.", ""]
    lines += [f"| call | trials | {' | '.join(ENDS)} |", "|---|---:|---:|---:|---:|"]
    for call in dict.fromkeys(call for call, _, _, _ in rows):
        ends = Counter(end for name, _, end, _ in rows if name == call)
        lines.append(f"| {call} | {sum(ends.values())} | {' | '.join(str(ends[end]) for end in ENDS)} |")
    lines += ["", *(f"- {fault}: {wrong}" for _, fault, _, wrong in rows if wrong)]
    versions, machine = package_versions(), hardware(1)
    lines += [
        "",
        "A trial fails where a message is missing or not one, a file of the run changes, the token shows up, a commit "
        "on main holds some of the files and not all, more than one commit is made, or the next push does not "
        "complete.",
        "The Hub is the tests' own (`tests/hub`), not huggingface.co; large files went through LFS. Waits were not "
        "waited for, and the downloaded model was compared in the same process.",
        "",
        f"{machine['processor']}, {machine['cores']} cores shared with other work; huggingface_hub "
        f"{versions['huggingface_hub']}, transformers {versions['transformers']}, torch {versions['torch']}; "
        f"{seconds:.0f} s; {datetime.now(UTC).date()}. `python benchmarks/push_trials.py`",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
