"""The comparison with peers: what is planned, what records say, and how it is written down."""

import itertools
from importlib import import_module
from pathlib import Path

import pytest

from hf_transfer.environment import hardware, package_versions
from hf_transfer.inspection import group_rows, model_without_weights
from hf_transfer.parsing import parse_command_line

EXTRACTION = "extraction/clothing10/vit_tiny_patch16_224"
FULL = "full/clothing10/vit_tiny_patch16_224"
PARTIAL = "partial/clothing10/vit_tiny_patch16_224"


def record(contender: str, number: int = 0, row: str = EXTRACTION, **facts) -> dict:
    """A finished run: 4 s outside of epochs, and epochs of 2 s of training and 1 s of validation."""
    epochs = facts.pop("epochs", 20)
    return {
        "row": row,
        "contender": contender,
        "round": number,
        "epochs": epochs,
        "of_epochs": 20,
        "seconds": 4.0 + 3.0 * epochs,
        "seconds_to_end": 5.0 + 3.0 * epochs,
        "train_seconds": [2.0] * epochs,
        "validation_seconds": [1.0] * epochs,
        "accuracy": 0.9,
        "images": {"train": 100, "validation": 10, "test": 10},
        "precision": "float32",
        "note": "",
        "hardware": hardware(1),
        "versions": package_versions() | {"fastai": "not installed"},
        "load": 0.1,
        "date": "2026-11-23",
        "code": "abc",
    } | facts


def goal_of(records: list[dict], row: str, text: str):
    found = [goal for goal in import_module("peer_results").goals(records) if goal.row == row and text in goal.text]
    assert len(found) == 1
    return found[0]


def test_a_short_run_is_scaled_by_its_mean_epoch():
    results = import_module("peer_results")
    short = record("timm", epochs=5, train_seconds=[4.0, 2.0, 2.0, 1.0, 1.0])
    assert short["seconds"] == 19.0
    assert results.whole_seconds(short) == pytest.approx(4.0 + 20 * 3.0)
    whole = record("timm") | {"seconds": 77.0}
    assert results.whole_seconds(whole) == 77.0


def test_rates_are_of_the_median_epoch_of_training():
    results = import_module("peer_results")
    assert results.images_per_second(record("ours", train_seconds=[9.0, 2.0, 2.0])) == 50.0
    assert results.images_per_second(record("bare inference", train_seconds=[])) is None


def test_accuracy_is_of_whole_runs_alone():
    results = import_module("peer_results")
    records = [record("timm", accuracy=0.8), record("timm", 1, epochs=5, accuracy=0.1)]
    assert results.accuracies(records, EXTRACTION, "timm") == [0.8]


def test_ratios_are_of_the_rounds_that_both_ran():
    results = import_module("peer_results")
    records = [record("timm", n, seconds=s) for n, s in enumerate((80.0, 90.0, 1e6))]
    records += [record("ours, cold", n, seconds=10.0) for n in (0, 1)]
    assert results.paired(records, EXTRACTION, "timm", "ours, cold") == results.Spread(8.5, 8.0, 9.0, 2)
    assert results.paired(records, EXTRACTION, "timm", "ours, warm") is None


def test_times_of_runs_for_accuracy_alone_do_not_count():
    results, peer = import_module("peer_results"), "Trainer, sensible"
    records = [record(peer, epochs=5, seconds=20.0), record("ours, cold", seconds=5.0)]
    before = results.paired(records, EXTRACTION, peer, "ours, cold")
    another = {"processor": "Another", "cores": 2}
    records.append(record(peer, seconds=1e6, accuracy=0.7, accuracy_only=True, hardware=another))
    assert results.paired(records, EXTRACTION, peer, "ours, cold") == before
    assert results.accuracies(records, EXTRACTION, peer) == [0.7]
    text = import_module("peer_table").table(records, [], "x")
    line = next(line for line in text.splitlines() if line.startswith(f"| {peer} |"))
    assert line.startswith(f"| {peer} | 65.0 |")
    assert line.endswith("| 0.700 (1) | 1 | 1 of 1 scaled from 5 epochs; 1 more for accuracy alone |")
    assert "Another" not in text.split("Runs for accuracy alone: ")[0]
    assert "Runs for accuracy alone: Hardware: Another, 2 cores." in text


@pytest.mark.parametrize(("seconds", "rounds", "holds"), [(15.0, 3, True), (15.1, 3, False), (15.0, 2, None)])
def test_a_goal_needs_three_rounds(seconds: float, rounds: int, holds: bool | None):
    records = []
    for number in range(rounds):
        records += [record("bare inference", number, seconds=10.0), record("ours, cold", number, seconds=seconds)]
    assert goal_of(records, EXTRACTION, "bare inference").holds is holds


@pytest.mark.parametrize(("ours", "holds"), [(0.898, True), (0.896, False)])
def test_a_goal_of_accuracy(ours: float, holds: bool):
    records = [record("ours, cold", accuracy=ours), record("fastai, sensible", accuracy=0.9)]
    goal = goal_of(records, EXTRACTION, "accuracy of ours, cold - fastai, sensible")
    assert goal.holds is holds
    assert goal.runs == "1 against 1 runs"


@pytest.mark.parametrize("ours", ["ours, partial", "ours, norms first"])
def test_fastai_whose_norms_learn_is_held_against_what_lets_something_learn_too(ours: str):
    records = []
    for number in range(3):
        records += [record("fastai, sensible", number, seconds=90.0), record("ours, cold", number, seconds=5.0)]
        records.append(record(ours, number, seconds=10.0, accuracy=0.91))
    goal = goal_of(records, EXTRACTION, f"seconds of fastai, sensible / {ours}")
    assert (goal.measured.median, goal.holds) == (9.0, True)
    assert goal_of(records, EXTRACTION, f"accuracy of {ours} - fastai, sensible").measured > 0
    goals = import_module("peer_results").goals
    assert not any(f"fastai, wholly frozen / {ours}" in goal.text for goal in goals(records))
    without = [run for run in records if run["contender"] != ours]
    assert not any(ours in goal.text for goal in goals(without))


@pytest.mark.parametrize(
    ("accuracy", "seconds", "verdicts"),
    [
        (0.9, 12.0, ["no", "yes", "yes"]),
        (0.9, 13.0, ["no", "no", "no"]),
        (0.896, 12.0, ["no", "no", "no"]),
    ],
)
def test_one_way_of_ours_has_to_be_both_faster_and_no_less_accurate(
    accuracy: float, seconds: float, verdicts: list[str]
):
    records = []
    for number in range(3):
        records.append(record("Trainer, sensible", number, seconds=100.0))
        records.append(record("ours, cold", number, seconds=10.0, accuracy=0.89))
        records.append(record("ours, norms first", number, seconds=seconds, accuracy=accuracy))
    text = import_module("peer_table").table(records, [], "x").split("## Faster, and no less accurate")[1]
    [line] = [line for line in text.splitlines() if line.startswith(f"| {EXTRACTION} | Trainer, sensible |")]
    assert [cell.split(": ")[-1].strip("* ") for cell in line.split("|")[3:6]] == verdicts
    assert "10.0 (10.0 to 10.0); -0.010" in line


def test_a_way_that_was_not_run_decides_nothing():
    records = [
        record(name, n, seconds=s) for n in range(3) for name, s in (("ours, cold", 5.0), ("fastai, sensible", 9.0))
    ]
    text = import_module("peer_table").table(records, [], "x").split("## Faster, and no less accurate")[1]
    [line] = [line for line in text.splitlines() if "fastai, sensible" in line]
    assert line.endswith("| too few rounds |")


def test_norms_that_learn_first_are_held_against_the_bare_pass_too():
    records = []
    for number in range(3):
        records += [record("bare inference", number, seconds=8.0), record("ours, norms first", number, seconds=12.4)]
    goal = goal_of(records, EXTRACTION, "seconds of ours, norms first / bare inference")
    assert (goal.measured.median, goal.holds) == (pytest.approx(1.55), False)


@pytest.mark.parametrize(
    ("differences", "holds"),
    [
        ((-0.01, 0.01, -0.02, 0.01, -0.01), True),  # mean -0.004, standard error 0.006
        ((-0.01, -0.01, -0.02, -0.01, -0.01), False),  # mean -0.012, standard error 0.002
        ((0.01, 0.01, 0.02, 0.01), None),
    ],
)
def test_the_cache_may_not_cost_more_accuracy_than_seeds_do(differences: tuple[float, ...], holds: bool | None):
    records = []
    for number, difference in enumerate(differences):
        records.append(record("ours, --cache off", number, row=PARTIAL, accuracy=0.8 + number / 100))
        records.append(record("ours, with cache", number, row=PARTIAL, accuracy=0.8 + number / 100 + difference))
    assert goal_of(records, PARTIAL, "accuracy of ours, with cache").holds is holds


def test_full_is_judged_by_its_rate():
    records = []
    for number in range(3):
        records.append(record("ours", number, row=FULL, of_epochs=3, epochs=3, train_seconds=[2.0] * 3))
        records.append(record("bare loop", number, row=FULL, of_epochs=3, epochs=3, train_seconds=[1.9] * 3))
        records.append(
            record("Trainer, its defaults", number, row=FULL, of_epochs=3, epochs=3, train_seconds=[2.8] * 3)
        )
    assert goal_of(records, FULL, "bare loop").measured.median == pytest.approx(0.95)
    assert goal_of(records, FULL, "Trainer, its defaults").holds is False


def test_the_table_names_scaled_runs_and_missing_peers():
    peer = "Trainer, sensible"
    records = [record(peer), record(peer, 1, epochs=5), record("ours, cold", accuracy=0.912)]
    text = import_module("peer_table").table(records, ["fastai"], "python benchmarks/peers.py")
    line = next(line for line in text.splitlines() if line.startswith(f"| {peer} |"))
    assert "64.0 (64.0 to 64.0)" in line
    assert "1 of 2 scaled from 5 epochs" in line
    assert "| 0.912 (1) |" in text
    assert "fastai is not installed here" in text
    assert "Dates: 2026-11-23. Code: abc." in text


def test_the_table_says_of_each_row_where_it_ran():
    elsewhere = {"hardware": {"processor": "Another", "cores": 2}, "precision": "bfloat16"}
    text = import_module("peer_table").table([record("ours, cold"), record("ours", row=FULL, **elsewhere)], [], "x")
    extraction, full = text.split("## ")[1:3]
    assert "Another" not in extraction
    assert "Precision: float32." in extraction
    assert "Hardware: Another, 2 cores." in full
    assert "Precision: bfloat16." in full


def test_runs_are_planned_round_by_round_and_short_where_slow():
    plan = import_module("peer_plan")
    runs = plan.planned_runs(rounds=3, full_rounds=1)
    assert len({run.key for run in runs}) == len(runs)
    assert [number for number, _ in itertools.groupby(run.round for run in runs)] == [0, 1, 2]
    later = {(run.contender.name, run.epochs) for run in runs if run.row.name == EXTRACTION and run.round == 2}
    assert {("Trainer, sensible", 5), ("ours, cold", 20), ("bare inference", 20)} <= later
    assert all(run.epochs == run.of_epochs for run in runs if run.round == 0)
    assert all(run.epochs == run.of_epochs == 1 for run in plan.planned_runs(2, 1, epochs=1))


def test_our_command_is_one_that_finetune_understands(scripts: Path, tmp_path: Path):
    plan = import_module("peer_plan")
    ours = [run for run in plan.planned_runs(1, 1) if run.contender.is_ours]
    assert {run.row.task for run in ours} == set(plan.EPOCHS)
    for run in ours:
        command = plan.our_command(run, tmp_path, tmp_path, tmp_path / "out", tmp_path / "cache")
        assert Path(command[1]) == scripts / "peer_ours.py"
        config = parse_command_line(command[3:])
        assert config.training["num_train_epochs"] == run.epochs
        assert config.early_stopping_patience == 0
        assert (config.cache == "off") == ("--cache off" in run.contender.name)
        assert config.cache_dir == str(tmp_path / "cache")
        assert (config.train_last is not None) == (config.strategy in ("partial", "progressive"))
        strategy = "feature-extraction" if run.row.task == plan.EXTRACTION else run.row.task
        assert config.strategy == ("partial" if run.contender.name == plan.OURS_PARTIAL else strategy)


def test_every_script_of_the_plan_is_there(scripts: Path):
    plan = import_module("peer_plan")
    named = {contender.script for contenders in plan.CONTENDERS.values() for contender in contenders}
    assert named == {path.name for path in scripts.glob("peer_*.py")} & named


def test_the_last_quarter_is_what_partial_chooses_by_blocks(assets: Path):
    plan = import_module("peer_plan")
    for name, number in plan.LAST_QUARTER.items():
        model = model_without_weights(str(assets / "checkpoints" / name))
        rows = group_rows(model, granularity="block", strategy="partial")
        assert sum(row["learns_first"] for row in rows) - 1 == int(number)
