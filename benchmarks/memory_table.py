"""The table of the measured memory of runs. Knows records (`memory.py`), and makes none."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from pipeline_runs import lab_note
from written_table import table_row

_HEAD = """# Memory of runs

Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/memory.py`. One run of `finetune.py` for each row.
Memory is anonymous (RssAnon + RssShmem of the process and its children, looked at every 50 ms); what is mapped from
caches is not in it, but is in what was resident (VmHWM). MB are 10^6 bytes. By default our commands let glibc keep
what is freed (`hf_transfer/allocator.py`), and so hold more than they need.
"""
_BY_STRATEGY = """## By strategy

96 pictures of clothing10, 12 steps of batches of 32, then an evaluation of 64 pictures at a time; frozen layers are
computed once and kept where that is the default. Measured: the peak of the whole run, less what the process had right
before the training; `needed` with freed blocks given back to the system at once, `held` as runs are by default.
`estimate` is the one printed before the training, without the weights, which are there before.

"""
_STRATEGY_COLUMNS = (
    "checkpoint",
    "computed in",
    "strategy",
    "estimate, MB",
    "needed, MB",
    "held, MB",
    "less than `full`: estimate, MB",
    "needed, MB",
    "held, MB",
)
_BY_PICTURES = """## By number of pictures

The same 500 pictures of rbc12 listed 1, 10 and 100 times in a table; mobilenet_v1_0.25_128, 20 steps of batches of 32,
pictures decoded once, features of two views of each kept where the strategy is `feature-extraction`. Growth is from
the row above, by picture more.

"""
_PICTURES_COLUMNS = (
    "strategy",
    "training pictures",
    "before training, MB",
    "peak of training, MB",
    "peak of the run, MB",
    "growth before, bytes",
    "growth of the peak of training, bytes",
    "resident, MB",
)


def table(records: Sequence[Mapping]) -> str:
    """Returns the text of `results/memory.md`."""
    sections = (
        ("strategies", _BY_STRATEGY, _STRATEGY_COLUMNS, _by_strategy),
        ("pictures", _BY_PICTURES, _PICTURES_COLUMNS, _by_pictures),
    )
    parts = [_HEAD]
    for name, head, columns, rows in sections:
        found = [record for record in records if record["part"] == name]
        if found:
            lines = (columns, ["---"] * len(columns), *rows(found))
            parts.append(head + "".join(f"{table_row(*line)}\n" for line in lines))
    return "\n".join([*parts, lab_note(records) + "\n"])


def _by_strategy(records: Sequence[Mapping]) -> Iterator[tuple[str, ...]]:
    cells: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    for record in records:
        of_strategies = cells.setdefault((record["checkpoint"], record["computed_in"].split(",")[0]), {})
        cell = of_strategies.setdefault(record["strategy"], {})
        cell["estimate"] = record["estimate"] - record["estimated_weights"]
        cell[record["allocator"]] = record["whole"] - record["before"]
    for (checkpoint, computed_in), of_strategies in cells.items():
        full = of_strategies.get("full", {})
        for strategy, cell in of_strategies.items():
            less = {name: full[name] - cell[name] for name in cell if name in full and strategy != "full"}
            yield (checkpoint, computed_in, strategy, *_shown(cell), *_shown(less))


def _shown(cell: Mapping[str, int]) -> Iterator[str]:
    return (_mb(cell[name]) if name in cell else "" for name in ("estimate", "given back", "kept"))


def _by_pictures(records: Sequence[Mapping]) -> Iterator[tuple[str, ...]]:
    for strategy in dict.fromkeys(record["strategy"] for record in records):
        rows = sorted((r for r in records if r["strategy"] == strategy), key=lambda record: record["pictures"])
        for earlier, record in pairwise([None, *rows]):
            yield (
                strategy,
                str(record["pictures"]),
                *(_mb(record[name]) for name in ("before", "training", "whole")),
                *(_growth(earlier, record, name) for name in ("before", "training")),
                _mb(record["resident"]),
            )


def _growth(earlier: Mapping | None, record: Mapping, name: str) -> str:
    if earlier is None:
        return ""
    return f"{(record[name] - earlier[name]) / (record['pictures'] - earlier['pictures']):.0f}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f}"
