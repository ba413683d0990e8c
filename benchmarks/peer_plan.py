"""What is run side by side: rows (a task on a checkpoint and a data set) and the contenders of each.

Knows names, epochs and command lines. Does not run anything and does not judge.
"""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHORT_EPOCHS = 5
"""Epochs of a slow contender's later rounds, and of runs that would take more than an hour."""
EXTRACTION, FULL, PARTIAL, PROGRESSIVE = "extraction", "full", "partial", "progressive"
EPOCHS = {EXTRACTION: 20, FULL: 3, PARTIAL: 20, PROGRESSIVE: 20}
"""Of `full` our default; the others have time to see a picture again."""


@dataclass(frozen=True)
class Row:
    """One task on one checkpoint and data set."""

    task: str
    checkpoint: str
    dataset: str

    @property
    def name(self) -> str:
        return f"{self.task}/{self.dataset}/{self.checkpoint}"


@dataclass(frozen=True)
class Contender:
    """One way of doing the task of a row."""

    name: str
    script: str
    task: str = ""
    """As the peers' scripts call it."""
    setting: str = "sensible"
    options: tuple[str, ...] = ()
    """Of `finetune.py`, for ours."""
    slow: bool = False
    """Whether later rounds are short and their time is scaled."""
    package: str | None = None
    """What has to be installed."""

    @property
    def is_ours(self) -> bool:
        return self.script == "peer_ours.py"

    def missing(self) -> bool:
        """Tells whether a package that it needs is not installed."""
        return self.package is not None and importlib.util.find_spec(self.package) is None


LAST_QUARTER = {"mobilenet_v1_0.5_160": "7", "mobilenet_v1_0.25_128": "7", "vit_tiny_patch16_224": "3"}
"""Layer groups that are the last quarter of a network's blocks, counted as `--granularity block` does."""


def last_quarter(checkpoint: str) -> tuple[str, ...]:
    """Returns the options by which `partial` and `progressive` train the last quarter of the blocks, and the head.

    For a network that is not listed, as in a smoke test, they are the strategies' own choice.
    """
    known = LAST_QUARTER.get(checkpoint)
    return () if known is None else ("--granularity", "block", "--train_last", known)


OURS_COLD, OURS_WARM, INFERENCE = "ours, cold", "ours, warm", "bare inference"
OURS_PARTIAL, OURS_NORMS = "ours, partial", "ours, norms first"
"""Beside `feature-extraction`, since a frozen body of fastai's lets its normalisation layers learn."""
OURS, BARE_LOOP = "ours", "bare loop"
TRAINER_DEFAULTS, TRAINER_SENSIBLE = "Trainer, its defaults", "Trainer, sensible"
FASTAI_DEFAULTS, FASTAI_SENSIBLE = "fastai, its defaults", "fastai, sensible"
FASTAI_WHOLLY_FROZEN = "fastai, wholly frozen"
CACHED, UNCACHED = "ours, with cache", "ours, --cache off"


def _ours(name: str, strategy: str, *more: str, slow: bool = False) -> Contender:
    return Contender(name, "peer_ours.py", options=("--strategy", strategy, *more), slow=slow)


def _peers(task: str, slow: bool) -> tuple[Contender, ...]:
    fastai = {"script": "peer_fastai.py", "task": task, "slow": slow, "package": "fastai"}
    return (
        Contender(TRAINER_SENSIBLE, "peer_trainer.py", task, slow=slow),
        Contender(TRAINER_DEFAULTS, "peer_trainer.py", task, "defaults", slow=slow),
        Contender(FASTAI_SENSIBLE, **fastai),
        Contender(FASTAI_DEFAULTS, **fastai, setting="defaults"),
        Contender("timm", "peer_timm.py", task, slow=slow, package="timm"),
    )


CONTENDERS: dict[str, tuple[Contender, ...]] = {
    EXTRACTION: (
        Contender(INFERENCE, "peer_bare.py", "inference"),
        _ours(OURS_COLD, "feature-extraction"),
        _ours(OURS_WARM, "feature-extraction"),
        _ours(OURS_NORMS, "feature-extraction", "--tune_norms", "1"),
        _ours(OURS_PARTIAL, "partial"),
        _ours(UNCACHED, "feature-extraction", "--cache", "off", slow=True),
        *(peer for peer in _peers("frozen", slow=True) if peer.package != "timm"),
        Contender(FASTAI_WHOLLY_FROZEN, "peer_fastai.py", "frozen", "wholly-frozen", slow=True, package="fastai"),
    ),
    FULL: (Contender(BARE_LOOP, "peer_bare.py", "full"), _ours(OURS, "full"), *_peers("full", slow=False)),
    PARTIAL: (_ours(CACHED, "partial"), _ours(UNCACHED, "partial", "--cache", "off")),
    PROGRESSIVE: (_ours(CACHED, "progressive"), _ours(UNCACHED, "progressive", "--cache", "off")),
}
ROWS = (
    Row(EXTRACTION, "mobilenet_v1_0.5_160", "clothing10"),
    Row(EXTRACTION, "vit_tiny_patch16_224", "clothing10"),
    Row(FULL, "mobilenet_v1_0.5_160", "clothing10"),
    Row(FULL, "vit_tiny_patch16_224", "clothing10"),
    Row(EXTRACTION, "mobilenet_v1_0.5_160", "rbc12"),
    Row(PARTIAL, "mobilenet_v1_0.5_160", "clothing10"),
    Row(PARTIAL, "vit_tiny_patch16_224", "clothing10"),
    Row(PROGRESSIVE, "mobilenet_v1_0.5_160", "clothing10"),
    Row(PROGRESSIVE, "vit_tiny_patch16_224", "clothing10"),
)
OVER_AN_HOUR: frozenset[tuple[str, str]] = frozenset()
"""Row and contender of full runs that take more than an hour on two cores: they are short in all rounds."""


@dataclass(frozen=True)
class Run:
    """One run of one contender."""

    row: Row
    contender: Contender
    round: int
    epochs: int
    """What is run."""
    of_epochs: int
    """What the row is about: more, where the run is short and its time is scaled."""

    @property
    def name(self) -> str:
        return f"{self.row.name}/{self.contender.name}/round {self.round}"

    @property
    def seed(self) -> int:
        return 42 + self.round

    @property
    def key(self) -> tuple:
        return (self.row.name, self.contender.name, self.round, self.epochs)


def planned_runs(rounds: int, full_rounds: int, epochs: int | None = None) -> list[Run]:
    """Lists all runs, round by round and the contenders of a row one after the other, so that none has quieter hours.

    Args:
        rounds (`int`):
            How often everything is run.
        full_rounds (`int`):
            How many of them slow contenders run in full.
        epochs (`int`, *optional*):
            For a smoke test: what every row is about.
    """
    return [
        Run(row, contender, number, _epochs(row, contender, number < full_rounds, epochs), epochs or EPOCHS[row.task])
        for number in range(rounds)
        for row in ROWS
        for contender in CONTENDERS[row.task]
    ]


def _epochs(row: Row, contender: Contender, in_full: bool, epochs: int | None) -> int:
    whole = epochs or EPOCHS[row.task]
    if (row.name, contender.name) in OVER_AN_HOUR or (contender.slow and not in_full):
        return min(SHORT_EPOCHS, whole)
    return whole


def peer_command(run: Run, checkpoint: Path, data: Path, out: Path, views: int) -> list[str]:
    """Returns the command line of a peer or a limit."""
    epochs = views if run.contender.task == "inference" else run.epochs
    command = [sys.executable, str(ROOT / "benchmarks" / run.contender.script)]
    command += ["--data", str(data), "--checkpoint", str(checkpoint), "--out", str(out)]
    command += ["--task", run.contender.task, "--setting", run.contender.setting]
    return [*command, "--epochs", str(epochs), "--seed", str(run.seed)]


def our_command(run: Run, checkpoint: Path, pictures: Path, out: Path, cache: Path) -> list[str]:
    """Returns the command line of ours.

    A run stops early by default where nothing gets better; here it does as many epochs as the others.
    """
    command = [sys.executable, str(ROOT / "benchmarks" / run.contender.script), str(out / "clock.json")]
    command += ["--model", str(checkpoint), "--dataset", str(pictures), *run.contender.options]
    if not {PARTIAL, PROGRESSIVE}.isdisjoint(run.contender.options):
        command += last_quarter(run.row.checkpoint)
    command += ["--num_train_epochs", str(run.epochs), "--early_stopping_patience", "0", "--seed", str(run.seed)]
    command += ["--cache_dir", str(cache), "--output_dir", str(out / "run"), "--disable_tqdm", "true"]
    return command
