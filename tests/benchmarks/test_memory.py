"""The measurement of memory: what is seen of a process, which pictures a run is given, and what the table says."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.loading import load_image_data
from hf_transfer.environment import hardware, package_versions
from hf_transfer.parsing import parse_command_line
from tests.tiny_project import tiny_pictures

MB = 10**6
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
# Goes on only when it has been looked at.
ALLOCATING = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)
print("small", flush=True)
wait_for("seen small")
block = bytearray(b"x") * 200_000_000
print("large", flush=True)
wait_for("seen large")
del block
wait_for("seen freed")
"""


@ON_LINUX
def test_memory_that_a_process_takes_and_frees_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memory_watch = import_module("memory_watch")
    look = memory_watch.memory_of

    def look_and_tell(pid: int) -> tuple[int, int]:
        anonymous, resident = look(pid)
        if anonymous > 200 * MB:
            (tmp_path / "seen large").touch()
        elif anonymous:
            (tmp_path / ("seen freed" if (tmp_path / "seen large").exists() else "seen small")).touch()
        return anonymous, resident

    monkeypatch.setattr(memory_watch, "memory_of", look_and_tell)
    command = [sys.executable, "-c", ALLOCATING, str(tmp_path)]
    lines = {name: name for name in ("small", "large", "never")}
    seen = memory_watch.watch(command, lines, {"looked": tmp_path / "seen large", "freed": tmp_path / "seen freed"})
    assert set(seen.marks) == {"small", "large", "looked", "freed"}
    assert seen.output.split() == ["small", "large"]
    assert 200 * MB < seen.highest() < 230 * MB
    assert seen.highest(None, "looked") > 200 * MB
    assert 0 < seen.last_before("freed") < 30 * MB
    assert seen.highest_resident > seen.highest()


def test_peaks_lie_between_marks():
    memory_watch = import_module("memory_watch")
    samples = tuple(
        memory_watch.Sample(float(second), size, 10 * size) for second, size in enumerate((1, 5, 3, 9, 2), start=1)
    )
    seen = memory_watch.Watched(samples, {"training": 2.5, "saving": 3.5}, "")
    assert [seen.highest(), seen.highest(None, "saving"), seen.highest("training", "saving")] == [9, 5, 3]
    assert seen.last_before("training") == 5
    assert seen.highest_resident == 90


@ON_LINUX
def test_memory_of_children_counts_and_that_of_the_gone_is_none():
    memory_watch = import_module("memory_watch")
    before = memory_watch.memory_of(os.getpid())[0]
    command = [sys.executable, "-c", "block = bytearray(b'x') * 100_000_000; print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alone, both = memory_watch.memory_of(child.pid)[0], memory_watch.memory_of(os.getpid())[0]
        child.communicate(b"\n")
    assert 100 * MB < alone < 130 * MB
    assert both - before > 90 * MB
    assert memory_watch.memory_of(child.pid) == (0, 0)


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(subprocess.CalledProcessError) as raised:
        import_module("memory_watch").watch([sys.executable, "-c", "print('said'); raise SystemExit('wrong')"])
    assert (raised.value.output.strip(), raised.value.stderr.strip()) == ("said", "wrong")


def test_training_pictures_are_listed_again_and_again_and_no_others(tmp_path: Path):
    memory = import_module("memory")
    folder = tiny_pictures(tmp_path / "pictures", per_class=4, splits=("train", "validation", "test"))
    pictures = {name: memory.some_pictures(folder / name, 6) for name in ("train", "validation", "test")}
    assert sorted(path.parent.name for path in pictures["train"]) == sorted(
        2 * [child.name for child in (folder / "train").iterdir()]
    )
    rows = tmp_path / "rows.csv"
    assert memory.write_list(rows, pictures, repeats=3) == 18
    data = load_image_data(FinetuneConfig(model="none", dataset=str(rows)))
    assert [len(data.split(name)) for name in pictures] == [18, 6, 6]
    once = data.content_hashes["train"][:6]
    assert data.content_hashes["train"] == 3 * once
    assert len(set(once)) == 6
    shown = [data.label_names[label] for label in data.train["label"]]
    assert shown == 3 * [path.parent.name for path in pictures["train"]]


def test_options_are_those_of_finetune():
    memory = import_module("memory")
    runs = list(memory.planned_runs())
    assert len(set(runs)) == len(runs) == 33
    for run in runs:
        config = parse_command_line(["--model", "m", "--dataset", "d", "--strategy", run.strategy, *run.options])
        assert config.training["max_steps"] == config.training["eval_steps"]
        assert (config.training.get("bf16") is False) == (run.precision == "float32")
    record = {name: getattr(runs[0], name) for name in memory.Run.__dataclass_fields__} | {"before": 1}
    assert memory.remaining(runs, [record]) == runs[1:]


@pytest.mark.parametrize(
    ("value", "reason", "expected"),
    [
        ("about 1.26 GB of 23.6 GB free", "weights 22 MB, optimizer 0 MB, evaluation of 64 images 1.2 GB", 1260),
        ("about 30 MB of 20 MB free: too much", "weights 22 MB, activations of 8 images 8 MB; half of it, and so", 30),
    ],
)
def test_the_estimate_is_read(value: str, reason: str, expected: int):
    found = import_module("memory").estimate_of({"value": value, "reason": reason})
    assert found == {"estimate": expected * MB, "estimated_weights": 22 * MB}


def record(part: str, strategy: str, training: int, estimate: int = 0, pictures: int = 96, before: int = 600) -> dict:
    return {
        "part": part,
        "checkpoint": "some_network",
        "strategy": strategy,
        "precision": "float32",
        "allocator": "kept",
        "computed_in": "float32, channels-last",
        "pictures": pictures,
        "before": before * MB,
        "training": training * MB,
        "whole": 2000 * MB,
        "resident": 3000 * MB,
        "estimate": estimate * MB,
        "estimated_weights": 5 * MB,
        "hardware": hardware(1),
        "versions": package_versions(),
        "date": "2026-11-26",
        "code": "abc",
    }


def test_the_table_compares_with_full_and_with_the_row_above():
    records = [
        record("strategies", "feature-extraction", 800, 105) | {"whole": 900 * MB},
        record("strategies", "feature-extraction", 800, 105) | {"whole": 800 * MB, "allocator": "given back"},
        record("strategies", "full", 1300, 555) | {"whole": 1400 * MB},
        record("strategies", "full", 1300, 555) | {"whole": 1250 * MB, "allocator": "given back"},
        record("strategies", "partial", 1300, 305) | {"computed_in": "bfloat16 autocast", "whole": 1000 * MB},
        record("pictures", "full", 700, pictures=500, before=600),
        record("pictures", "full", 709, pictures=5000, before=609),
    ]
    lines = import_module("memory_table").table(records).splitlines()
    assert "| some_network | float32 | feature-extraction | 100 | 200 | 300 | 450 | 450 | 500 |" in lines
    assert "| some_network | float32 | full | 550 | 650 | 800 |  |  |  |" in lines
    assert "| some_network | bfloat16 autocast | partial | 300 |  | 400 |  |  |  |" in lines
    assert "| full | 500 | 600 | 700 | 2000 |  |  | 3000 |" in lines
    assert "| full | 5000 | 609 | 709 | 2000 | 2000 | 2000 | 3000 |" in lines
    assert "Dates: 2026-11-26. Code: abc." in lines[-1]
