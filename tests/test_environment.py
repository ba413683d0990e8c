"""Which code ran: a checkout's commit, and nothing where the package is no part of one."""

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from hf_transfer.environment import code_version

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
