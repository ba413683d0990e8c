"""Which code ran: a checkout's commit, and nothing where the package is no part of one. Which processor."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from hf_transfer.environment import _processor_name, code_version, processor_vendor

VERSION = metadata.version("hf-transfer-learning")


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("", encoding="utf-8")
    git(folder.parent, "init")
    return folder


def test_commit_and_changes(package: Path, monkeypatch: pytest.MonkeyPatch):
    git(package, "add", ".")
    git(package, "commit", "-m", "first")
    commit = git(package, "rev-parse", "HEAD").strip()
    assert code_version(package) == {"version": VERSION, "commit": commit, "dirty": False}
    (package.parent / "notes.txt").write_text("beside the package", encoding="utf-8")
    assert code_version(package)["dirty"] is False
    (package / "new.py").write_text("", encoding="utf-8")
    assert code_version(package)["dirty"] is True
    # As inside of a hook of another repository.
    monkeypatch.setenv("GIT_DIR", str(package / "nowhere"))
    assert code_version(package)["commit"] == commit


def test_a_package_that_is_installed_inside_of_a_checkout_is_no_part_of_it(package: Path):
    assert code_version(package) == {"version": VERSION, "commit": None, "dirty": None}


def test_without_git_the_version_is_what_is_known(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert code_version(package) == {"version": VERSION, "commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (("cpu family\t: 26", "model\t\t: 2", "model name\t: AMD EPYC"), "AMD EPYC (family 26, model 2)"),
        (("model name\t: A processor: the large one",), "A processor: the large one"),
    ],
)
def test_the_processor_has_family_and_model(tmp_path: Path, lines: tuple[str, ...], name: str):
    facts = tmp_path / "cpuinfo"
    second = "processor\t: 1\ncpu family\t: 9\nmodel\t: 9\nmodel name\t: Another\n\n"
    facts.write_text("\n".join(("processor\t: 0", *lines)) + "\n\n" + second, encoding="utf-8")
    assert _processor_name(facts) == name


def test_a_processor_without_a_name(tmp_path: Path):
    facts = tmp_path / "cpuinfo"
    known = platform.processor() or platform.machine()
    assert _processor_name(facts) == known
    facts.write_text("processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n", encoding="utf-8")
    assert _processor_name(facts) == known


def test_who_made_the_processor(tmp_path: Path):
    facts = tmp_path / "cpuinfo"
    assert processor_vendor(facts) == ""
    facts.write_text(
        "processor\t: 0\nvendor_id\t: AuthenticAMD\n\nprocessor\t: 1\nvendor_id\t: Other\n", encoding="utf-8"
    )
    assert processor_vendor(facts) == "AuthenticAMD"
