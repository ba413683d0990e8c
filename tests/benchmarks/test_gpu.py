"""The GPU benchmark: its pictures, its plan under a time limit, its verdicts, and the whole of it on tiny networks."""

import colorsys
import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.loading import load_image_data

NETWORK = "ResNet-50"


def records(**changes: float | None) -> list[dict]:
    """Of one network that reaches its goals; `None` leaves a task out."""
    plan = import_module("gpu_plan")
    rates = {
        plan.DECODING: 2000.0,
        plan.BARE: 1000.0,
        plan.TRAINING: 990.0,
        plan.TIMM: 980.0,
        plan.BARE_AGAIN: 1000.0,
        plan.INFERENCE: 4000.0,
        plan.EXTRACTION: 1700.0,
    } | {name.replace("_", " "): rate for name, rate in changes.items()}
    facts = {plan.TRAINING: {"loader_wait_share": 0.01}}
    return [
        {"network": NETWORK, "task": task, "rate": rate, **facts.get(task, {})}
        for task, rate in rates.items()
        if rate is not None
    ]


def verdicts(found: list[dict], on_gpu: bool = True) -> list[bool | None]:
    """Of extraction, training beside the bare loop and beside timm, and the wait."""
    return [goal.holds for goal in import_module("gpu_table").goals(found, on_gpu)]


def report(found: list[dict], gpu_bytes: int | None = 2**36) -> dict:
    plan = import_module("gpu_plan")
    return {
        "machine": {
            "hardware": {"accelerators": ["some GPU"], "processor": "some processor", "cores": 16},
            "versions": dict.fromkeys(("torch", "transformers", "accelerate", "timm", "pillow"), "1.0"),
            "code": {"commit": "abcdef0123", "dirty": False},
            "cuda": "13.0",
            "gpu_bytes": gpu_bytes,
        },
        "smoke": False,
        "size": dataclasses.asdict(plan.FULL),
        "networks": [{"name": NETWORK, "pixels": 224}],
        "records": found,
        "command": "python benchmarks/gpu.py",
        "date": "2026-11-26",
        "minutes": 8.0,
    }


def test_goals_that_are_reached():
    assert verdicts(records()) == [True] * 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"extraction": 1600.0}, [True, True, True, True]),
        ({"extraction": 1599.0}, [False, True, True, True]),
        # The slower limit is now the network, not the decoding.
        ({"extraction": 1199.0, "bare_inference": 1500.0}, [False, True, True, True]),
        ({"extraction": 1201.0, "bare_inference": 1500.0}, [True, True, True, True]),
        ({"training": 949.0, "timm": 900.0}, [True, False, True, True]),
        ({"timm": 991.0}, [True, True, False, True]),
        ({"timm": None}, [True, True, None, True]),
        ({"bare_inference": None}, [None, True, True, True]),
        ({"training": None}, [True, None, None, None]),
    ],
)
def test_goals_at_their_edges(changes: dict, expected: list):
    assert verdicts(records(**changes)) == expected


def test_the_bare_loop_counts_as_the_mean_of_both_times():
    found = [r | ({"rate": 1200.0} if r["task"] == "bare loop, again" else {}) for r in records()]
    assert import_module("gpu_table").rate_of(found, NETWORK, "bare loop") == 1100.0
    assert verdicts(found)[1] is False


@pytest.mark.parametrize(("share", "holds"), [(0.049, True), (0.05, False)])
def test_the_wait_is_the_loaders(share: float, holds: bool):
    found = [
        r | ({"loader_wait_share": share, "data_wait_share": 0.9} if "loader_wait_share" in r else {})
        for r in records()
    ]
    assert verdicts(found)[3] is holds


def test_nothing_is_judged_on_a_cpu():
    table = import_module("gpu_table")
    assert verdicts(records(), on_gpu=False) == [None] * 4
    text = table.table(report(records(), gpu_bytes=None))
    assert table.ON_CPU in text
    assert "| yes |" not in text
    assert "| **no** |" not in text


def test_the_table_says_yes_and_no_and_what_is_missing():
    table = import_module("gpu_table")
    found = [
        *records(timm=None, extraction=100.0),
        {"network": NETWORK, "task": "timm", "not_measured": "skipped: 3 s"},
    ]
    text = table.table(report(found))
    assert f"| {NETWORK} | extraction, at least 0.8 of the slower limit | 0.050 | **no** |" in text
    assert f"| {NETWORK} | training, at least 0.95 of the bare loop | 0.990 | yes |" in text
    assert f"| {NETWORK} | training, no slower than timm | - | not measured |" in text
    assert f"- {NETWORK}, timm: skipped: 3 s" in text
    for fact in ("some GPU", "64 GiB", "16 cores", "torch 1.0", "2026-11-26", "abcdef012", "python benchmarks/gpu.py"):
        assert fact in text
    assert table.ON_CPU not in text


def test_what_no_longer_fits_is_left_out():
    plan = import_module("gpu_plan")
    expected = {plan.START: 10.0, "a": 30.0, "b": 20.0, "c": 5.0}
    assert plan.affordable(["a", "b", "c"], 65.0, expected) == (["a", "b", "c"], [])
    assert plan.affordable(["a", "b", "c"], 64.0, expected) == (["a", "b"], ["c"])
    assert plan.affordable(["a", "b", "c"], 46.0, expected) == (["a", "c"], ["b"])
    assert plan.affordable(["a", "b", "c"], 9.0, expected) == ([], ["a", "b", "c"])


def test_expectations_follow_the_slowest_network_so_far():
    plan = import_module("gpu_plan")
    done = [{"task": "timm", "wall_seconds": s} for s in (4.0, 6.0, 5.0)] + [{"task": "training", "not_measured": "x"}]
    learned = plan.learned(plan.EXPECTED, done)
    assert learned["timm"] == 6.0
    assert learned["training"] == plan.EXPECTED["training"]
    assert plan.EXPECTED["timm"] != 6.0


def test_steps_last_as_long_as_they_should():
    size = import_module("gpu_plan").FULL
    assert size.steps(None) == size.fewest_steps
    assert size.steps(1.0) == size.fewest_steps
    assert size.steps(2560.0) == round(size.training_seconds * 20)
    assert size.extraction_epochs > import_module("hf_transfer.training.kept_views").DEFAULT_VIEWS
    # Pictures are then looked at more than once, so that they are decoded once.
    assert (size.warm_up + size.fewest_steps) * size.batch > size.classes * size.train_per_class


def test_no_time_at_all_leaves_a_table_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gpu, plan = import_module("gpu"), import_module("gpu_plan")
    monkeypatch.setattr(gpu, "decoding_rate", lambda files, side: {"pictures": 1, "seconds": 1.0, "rate": 1.0})
    monkeypatch.setattr(gpu, "make_pictures", lambda folder, size: tmp_path)
    args = gpu.read_arguments(["--minutes", "0.1", "--scratch", str(tmp_path), "--out", str(tmp_path / "gpu.md")])
    gpu.Benchmark(args, report([])["machine"], time.monotonic()).run()
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for network in plan.NETWORKS:
        for task in plan.TASKS:
            assert f"- {network.name}, {task}: skipped: " in text
    assert len(json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["records"]) == 4 * 7


def test_a_task_that_fails_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gpu, plan = import_module("gpu"), import_module("gpu_plan")
    args = gpu.read_arguments(["--scratch", str(tmp_path), "--out", str(tmp_path / "gpu.md"), "--only", NETWORK])
    benchmark = gpu.Benchmark(args, report([])["machine"], time.monotonic())
    asked = []

    def process(network, tasks, pictures) -> str | None:
        asked.append(tuple(tasks))
        add_record = import_module("pipeline_runs").add_record
        for task in tasks:
            if task == plan.TIMM:
                return "failed with exit code 1: no such network"
            add_record(
                benchmark.child_records, {"network": network.name, "task": task, "rate": 1.0, "wall_seconds": 2.0}
            )
        return None

    monkeypatch.setattr(benchmark, "run_process", process)
    benchmark.measure(plan.NETWORKS[0], tmp_path)
    assert asked == [plan.TASKS, (plan.BARE_AGAIN, plan.INFERENCE, plan.EXTRACTION)]
    assert {r["task"] for r in benchmark.records if "rate" in r} == set(plan.TASKS) - {plan.TIMM}
    assert [r["not_measured"] for r in benchmark.records if "rate" not in r] == [
        "failed with exit code 1: no such network"
    ]
    assert benchmark.expected[plan.TRAINING] == 2.0


def test_pictures_are_jpegs_in_the_hue_of_their_class(tmp_path: Path):
    pictures, size = import_module("gpu_pictures"), import_module("gpu_plan").SMOKE
    folder = pictures.make_pictures(tmp_path / "one", size, processes=1)
    again = pictures.make_pictures(tmp_path / "two", size, processes=1)
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) == size.classes * (size.train_per_class + 2 * size.other_per_class)
    contents = [file.read_bytes() for file in files]
    assert contents == [(again / file.relative_to(folder)).read_bytes() for file in files]
    assert len({hashlib.sha256(content).hexdigest() for content in contents}) == len(files)
    data = load_image_data(FinetuneConfig(model="none", dataset=str(folder)))
    assert data.label_names == tuple(pictures.class_name(number) for number in range(size.classes))
    for split, count in (("train", size.train_per_class), ("validation", size.other_per_class)):
        assert data.class_counts(split) == (count,) * size.classes
        for row in data.split(split):
            with Image.open(row["image"]["path"]) as image:
                image.load()
            assert (image.format, image.size, image.mode) == ("JPEG", size.picture, "RGB")
            hue = colorsys.rgb_to_hsv(*np.asarray(image).mean(axis=(0, 1)) / 255)[0]
            distances = [abs((hue - pictures.class_hue(n, size.classes) + 0.5) % 1 - 0.5) for n in range(size.classes)]
            assert int(np.argmin(distances)) == row["label"]
    # What is there is not made again.
    files[0].write_bytes(b"mine")
    pictures.make_pictures(tmp_path / "one", size, processes=1)
    assert files[0].read_bytes() == b"mine"


def test_the_decoding_ceiling_counts_each_picture_once(tmp_path: Path):
    pictures, size = import_module("gpu_pictures"), import_module("gpu_plan").SMOKE
    files = sorted(pictures.make_pictures(tmp_path, size, processes=1).rglob("*.jpg"))
    found = pictures.decoding_rate(files, 32, processes=1)
    assert found["pictures"] == len(files)
    assert found["rate"] == pytest.approx(len(files) / found["seconds"])


def test_without_a_gpu_only_the_smoke_run_is_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    gpu = import_module("gpu")
    monkeypatch.setattr(gpu, "ask_machine", lambda smoke: report([], gpu_bytes=None)["machine"])
    assert gpu.main(["--scratch", str(tmp_path), "--out", str(tmp_path / "gpu.md")]) == 2
    assert "--smoke" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_on_tiny_networks(scripts: Path, tmp_path: Path):
    out, scratch = tmp_path / "gpu.md", tmp_path / "scratch"
    command = [sys.executable, str(scripts / "gpu.py"), "--smoke", "--minutes", "19", "--out", str(out)]
    done = subprocess.run([*command, "--scratch", str(scratch)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = import_module("gpu_plan")
    found = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    rates = {(r["network"], r["task"]): r["rate"] for r in found["records"]}
    names = [network.name for network in plan.NETWORKS]
    assert set(rates) == {(name, task) for name in names for task in (plan.DECODING, *plan.TASKS)}
    assert min(rates.values()) > 0
    for record in found["records"]:
        if record["task"] == plan.TRAINING:
            assert 0 <= record["loader_wait_share"] <= 1
            assert 0 <= record["data_wait_share"] <= 1
            assert record["decoding_seconds"] > 0
        if record["task"] == plan.EXTRACTION:
            assert record["images"] == 2 * 9 + 6
            assert record["rate"] == pytest.approx(record["images"] / record["seconds"])
            assert record["seconds"] == pytest.approx(record["decoding_seconds"] + record["build_seconds"])
    text = out.read_text(encoding="utf-8")
    assert text.strip() in done.stdout
    assert import_module("gpu_table").ON_CPU in text
    assert all(text.count(f"| {name} |") == 2 + 4 for name in names)
    assert not list((scratch / "cache").glob("*"))
