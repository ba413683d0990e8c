"""PyPI's `hf-transfer` beside us is noticed at start."""

from pathlib import Path

import pytest

from hf_transfer.errors import UserError
from hf_transfer.name_clash import check_name_clash


def test_nothing_is_said_where_there_is_no_clash():
    check_name_clash()


def test_an_installed_namesake_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = tmp_path / "hf_transfer-0.1.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hf-transfer\nVersion: 0.1.9\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="0.1.9") as error:
        check_name_clash()
    assert "pip uninstall -y hf-transfer" in (error.value.hint or "")
