"""Every family that can be built tiny, through the whole export: what works is recorded, and so is what does not."""

from pathlib import Path

import pytest

from hf_transfer.publishing.export_formats import FILE_NAMES
from tests.publishing.export_models import ALL_MODELS, need_onnx, try_family

REFUSED: dict[tuple[str, str], str] = {}
"""(family, format) -> a part of the refusal. When one of these works, the test says so: take it out."""


@pytest.mark.slow
@pytest.mark.parametrize("export_format", ["onnx", "torch"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_family(tmp_path: Path, name: str, export_format: str):
    if export_format == "onnx":
        need_onnx()
    answer = try_family(tmp_path, name, export_format)
    file = tmp_path / "export" / FILE_NAMES[export_format]
    if (name, export_format) in REFUSED:
        assert REFUSED[name, export_format] in answer
        assert not file.exists()
    else:
        assert answer == "works"
        assert file.stat().st_size > 0


def test_the_records_are_about_families_that_exist():
    assert {name for name, _ in REFUSED} <= set(ALL_MODELS)
    assert len(ALL_MODELS) > 45
