"""The table of the measured memory of runs. Knows records (`memory.py`), and makes none."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from pipeline_runs import lab_note

_HEAD = """# Memory of runs

Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/memory.py`. One run of `finetune.py` for each row.
Memory is anonymous (RssAnon + RssShmem of the process and its children, looked at every 50 ms); what is mapped from
caches is not in it, but is in what was resident (VmHWM). MB are 10^6 bytes. glibc keeps freed memory on purpose
(`hf_transfer/allocator.py`).
"""
_BY_STRATEGY = """## By strategy

96 pictures of clothing10, 12 steps of batches of 32, then an evaluation of 64 pictures at a time; frozen layers are
computed once and kept where that is the default. Measured: the peak of the training, from its first step (or the
computing of features) to the saving of the model, less what the process had right before; `estimate` is the one
printed before the training, without the weights, which are there before. The modules that torch loads with the first
step, what kernels take for themselves and what the allocator holds back are in the former alone.

"""
_STRATEGY_COLUMNS = (
    "checkpoint",
    "computed in",
    "strategy",
    "before, MB",
    "training, MB",
    "estimate, MB",
    "less than `full`, MB",
    "by the estimate, MB",
    "resident, MB",
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
            parts.append(head + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join([*parts, lab_note(records) + "\n"])


def _by_strategy(records: Sequence[Mapping]) -> Iterator[tuple[str, ...]]:
    full = {(r["checkpoint"], r["precision"]): r for r in records if r["strategy"] == "full"}
    for record in records:
        measured, estimate = _beyond(record)
        whole = full.get((record["checkpoint"], record["precision"]))
        saved = ("", "")
        if whole is not None and whole is not record:
            saved = tuple(_mb(more - less) for more, less in zip(_beyond(whole), (measured, estimate), strict=True))
        yield (
            record["checkpoint"],
            record["computed_in"].split(",")[0],
            record["strategy"],
            _mb(record["before"]),
            _mb(measured),
            _mb(estimate),
            *saved,
            _mb(record["resident"]),
        )


def _beyond(record: Mapping) -> tuple[int, int]:
    """Returns what a training took beyond what was there before it: measured, and by the estimate."""
    return record["training"] - record["before"], record["estimate"] - record["estimated_weights"]


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
