"""Checkpoints: whole or passed over, and never continued by another run."""

from pathlib import Path

import pytest

from hf_transfer.errors import UserError
from hf_transfer.training.checkpoints import check_identity, find_checkpoint, is_whole, seal_checkpoint, write_identity


def checkpoint(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    (made / "inner").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "inner" / "optimizer.pt").write_bytes(b"moments")
    seal_checkpoint(made)
    return made


def test_the_last_whole_checkpoint_is_found(tmp_path: Path):
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    found = find_checkpoint(tmp_path)
    assert (found.folder, found.notes) == (tmp_path / "checkpoint-100", ())


@pytest.mark.parametrize("damage", ["missing", "shorter", "never sealed", "list damaged"])
def test_one_that_is_not_whole_is_passed_over_with_a_note(tmp_path: Path, damage: str):
    checkpoint(tmp_path, 5)
    last = checkpoint(tmp_path, 6)
    match damage:
        case "missing":
            (last / "inner" / "optimizer.pt").unlink()
        case "shorter":
            (last / "model.safetensors").write_bytes(b"wei")
        case "never sealed":
            (last / "contents.json").unlink()
        case "list damaged":
            (last / "contents.json").write_text('{"model', encoding="utf-8")
    assert not is_whole(last)
    found = find_checkpoint(tmp_path)
    assert found.folder == tmp_path / "checkpoint-5"
    assert found.notes == ("checkpoint-6 was cut off while it was written, and is passed over.",)


def test_no_checkpoint_at_all(tmp_path: Path):
    assert find_checkpoint(tmp_path / "nowhere").folder is None
    (tmp_path / "checkpoint-best").mkdir()
    assert find_checkpoint(tmp_path).folder is None
    assert find_checkpoint(tmp_path).notes == ()


def test_another_run_is_refused_with_what_differs(tmp_path: Path):
    write_identity(tmp_path, {"strategy": "full", "labels": ["cat", "dog"], "seed": 1})
    check_identity(tmp_path, {"strategy": "full", "labels": ("cat", "dog"), "seed": 1})
    with pytest.raises(UserError) as error:
        check_identity(tmp_path, {"strategy": "partial", "labels": ["cat", "hen"], "seed": 1})
    assert 'strategy: it was "full", it is "partial"' in str(error.value)
    assert 'labels: it was ["cat", "dog"], it is ["cat", "hen"]' in str(error.value)
    assert "seed" not in error.value.given


def test_a_checkpoint_of_nobody_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="does not say which run"):
        check_identity(tmp_path, {"strategy": "full"})
