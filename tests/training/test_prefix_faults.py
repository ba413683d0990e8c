"""What is kept for frozen layers where disks are full, files damaged, runs at once or killed: the same weights."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.cache_folder import SEAL
from hf_transfer.errors import UserError
from hf_transfer.training import prefix_store
from hf_transfer.training.prefix_cut import Inlet
from tests.processes import launched, on_cpus, run_on_cpus
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_prefix_cache import trained
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_model


@pytest.mark.parametrize("fault", ["cut off", "flipped", "no seal", "other seal", "half made"])
def test_damaged_files_are_computed_again(fault: str, tmp_path: Path):
    good, _ = trained("vit", tmp_path)
    folder = next(path for path in (tmp_path / "cache").glob("train-*") if path.is_dir())
    file = folder / "inlet_0.bin"
    whole = file.read_bytes()
    if fault == "cut off":
        file.write_bytes(whole[: len(whole) // 2])
    elif fault == "flipped":
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    elif fault == "no seal":
        (folder / SEAL).unlink()
    elif fault == "other seal":
        (folder / SEAL).write_text("{")
    else:
        folder.rename(folder.with_name(folder.name + ".partial"))
    again, facts = trained("vit", tmp_path)
    assert facts[0]["cached"]
    assert file.read_bytes() == whole
    assert all(torch.equal(good[name], again[name]) for name in good)


def test_a_full_disk_is_a_reason_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain, _ = trained("vit", tmp_path, "off")

    def no_room(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    without, facts = trained("vit", tmp_path)
    assert "no room for it (No space left on device)" in facts[0]["reason"]
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert all(torch.equal(plain[name], without[name]) for name in plain)
    with pytest.raises(UserError, match="--cache on: .*no room"):
        trained("vit", tmp_path, "on")


def test_memory_stands_in_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What lies in memory has no name once it is open, so that nothing of it stays there, whatever ends the run."""
    on_disk, _ = trained("vit", tmp_path)
    allocate, asked = os.posix_fallocate, []

    def no_room_below(descriptor: int, *rest):
        place = os.readlink(f"/proc/self/fd/{descriptor}")
        asked.append(place)
        if place.startswith(str(tmp_path)):
            raise OSError(28, "No space left on device")
        allocate(descriptor, *rest)

    monkeypatch.setattr(os, "posix_fallocate", no_room_below)
    shutil.rmtree(tmp_path / "cache")
    in_memory, facts = trained("vit", tmp_path)
    memory = prefix_store.memory_folder()
    assert memory is not None
    assert facts[0]["cached"]
    assert any(place.startswith(str(memory)) for place in asked)
    assert not [path for path in memory.iterdir() if path.is_dir()]
    assert all(torch.equal(on_disk[name], in_memory[name]) for name in on_disk)


def test_no_memory_is_taken_that_the_training_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inlet = Inlet("head", 0, 0, (10,), torch.float32)
    memory = prefix_store.memory_folder()
    assert memory is not None
    monkeypatch.setattr(prefix_store, "_SPARE", 10**12)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        prefix_store.make_files(memory / "store", (inlet,), 1000)
    prefix_store.make_files(tmp_path / "store", (inlet,), 1000)


def test_a_folder_of_somebody_else_is_not_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(prefix_store, "MEMORY", tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert prefix_store.memory_folder() is None
    assert (tmp_path / "hf_transfer-12345").stat().st_mode & 0o077 == 0
    monkeypatch.setattr(prefix_store, "MEMORY", tmp_path / "missing")
    assert prefix_store.memory_folder() is None


def test_a_limit_is_kept(tmp_path: Path):
    _, facts = trained("vit", tmp_path, limit=1000)
    assert "would be kept, --cache_limit is 1 kB" in facts[0]["reason"]


def test_memory_does_not_hold_what_the_disk_does(tmp_path: Path):
    """Rows are mapped: a store of 400 MB is opened and a row of it read within 50 MB."""
    import resource

    inlet = Inlet("head", 0, 0, (1000, 100), torch.float32)
    prefix_store.make_files(tmp_path / "store", (inlet,), 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = prefix_store.PrefixStore(prefix_store.partial_folder(tmp_path / "store"), (inlet,), 1000)
    assert store.read(torch.tensor([5, 999]), torch.device("cpu"))[0].shape == (2, 1000, 100)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    shutil.rmtree(tmp_path / "store.partial")


def test_two_processes_build_one_cache_and_learn_the_same(tmp_path: Path):
    two = tmp_path / "two.safetensors"
    done = run_on_cpus(launched("tests.training.cached_run", str(two), str(tmp_path / "two"), "partial", "2"))
    assert done.returncode == 0, done.stderr[-3000:]
    one = tmp_path / "one.safetensors"
    words = ("tests.training.cached_run", str(one), str(tmp_path / "one"), "partial", "4")
    done = run_on_cpus(launched(*words, processes=1))
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(load_file(one), load_file(two))
    for folder in (path for path in (tmp_path / "one").iterdir() if path.is_dir()):
        ours, theirs = (
            torch.from_file(str(root / folder.name / "inlet_0.bin"), size=100)
            for root in (tmp_path / "one", tmp_path / "two")
        )
        torch.testing.assert_close(ours, theirs)


def test_two_runs_at_once_share_one_cache(tmp_path: Path):
    words = [sys.executable, "-m", "tests.training.cached_run"]
    runs = [
        subprocess.Popen(
            [*words, str(tmp_path / f"{n}.safetensors"), str(tmp_path / "cache"), "feature-extraction", "4"],
            env=on_cpus(),
            cwd=Path.cwd(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    for process in runs:
        assert process.wait(250) == 0, process.stderr.read()[-3000:] if process.stderr else ""
        if process.stderr:
            process.stderr.close()
    first, second = (load_file(tmp_path / f"{n}.safetensors") for n in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 2


def test_killed_while_building_leaves_nothing_that_is_read(tmp_path: Path):
    program = (
        "import os, signal, sys\n"
        "from hf_transfer.training.prefix_store import PrefixStore\n"
        "write = PrefixStore.write\n"
        "def write_and_die(store, rows, kept):\n"
        "    write(store, rows, kept)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "PrefixStore.write = write_and_die\n"
        "from tests.training.cached_run import main\n"
        "main(*sys.argv[1:])\n"
    )
    words = [str(tmp_path / "killed.safetensors"), str(tmp_path / "cache"), "feature-extraction", "4"]
    killed = run_on_cpus([sys.executable, "-c", program, *words])
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert list((tmp_path / "cache").glob("*.partial"))
    again = run_on_cpus(launched("tests.training.cached_run", *words, processes=1))
    assert again.returncode == 0, again.stderr[-3000:]
    assert not list((tmp_path / "cache").glob("*.partial"))
    model = tiny_model("vit")
    cached_trainer(
        model,
        tmp_path / "plain",
        "vit",
        tmp_path / "other",
        views=1,
        mode="off",
        strategy="feature-extraction",
        num_train_epochs=3,
    ).train()
    assert_same(weights_of(model), load_file(tmp_path / "killed.safetensors"))
