"""Lines of a table, and the file that they go to."""

from pathlib import Path


def test_a_table_has_as_many_dashes_as_columns_and_replaces_what_was_there(tmp_path: Path):
    from written_table import table_head, table_row, write_lines

    written = tmp_path / "table.md"
    written.write_text("of another day\n" * 9)
    write_lines(written, [*table_head("network", "", "img/s"), table_row("ViT-Ti/16", "step", "64.7")])
    assert written.read_text() == "| network |  | img/s |\n|---|---|---|\n| ViT-Ti/16 | step | 64.7 |\n"
