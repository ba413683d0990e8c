"""The table of the comparison with peers.

Knows how results are written down. What they are is made in `peer_results`.
"""

import statistics
from collections.abc import Sequence

import peer_plan as plan
from peer_results import (
    EXTRACTION_PEERS,
    WAYS,
    WITHIN,
    Goal,
    Spread,
    accuracies,
    beside,
    both_hold,
    either_holds,
    for_accuracy_alone,
    goals,
    images_per_second,
    is_scaled,
    of,
    spread,
    timed,
    whole_seconds,
)
from pipeline_runs import lab_note
from written_table import table_head, table_row

HEAD = """# Ours and its peers, side by side

Every contender runs in a process of its own on the same files; the test pictures are touched once, at the end. Seconds
are from process start to test predictions on the disk (of ours: `metrics.json`), median and range of the rounds; "to
the end" counts all that a contender writes (ours: figures, a card and its lines tried out), "epoch" is training alone.
"cold" starts without any cache of ours and makes it, "warm" finds what the run before it made; files are in the
system's memory for all. "scaled": some or all of the rounds ran {short} epochs, of which the mean stands for the
others; accuracy is of whole runs alone, with their number. Weights are those of the last epoch but for ours, which
keeps the best on validation data as it does by default. Settings of each peer are described in its script,
`benchmarks/peer_*.py`; fastai and timm leave out a last batch that is not full, and fastai's frozen bodies let their
normalisation layers learn, unless they are called wholly frozen. Two of ours are beside them for that: "ours, norms
first" lets normalisation layers learn in the first epoch and is frozen then (`--tune_norms 1`), "ours, partial" lets
the last quarter of the blocks learn. Ratios are of the rounds that both ran. Where a row names several codes, some
contenders ran again with a later one, not in turns with all the others. Runs "for accuracy alone" were made on
another machine or at another time, and their times are left out.
"""

GOALS = """A body whose normalisation layers learn is not frozen, whatever it is called. Ours with a frozen one is held
against it all the same, and so are those of ours that let something learn below the head.
"""

BESIDE = f"""`feature-extraction` of ours beside each peer: how many times as long the peer takes, at least 8, and the
accuracy of ours less that of the peer, at least -{WITHIN:g}. Either way is enough where both hold. `peer_folds.md`
has vit_tiny_patch16_224 on all pictures of its data set, and norms that learn for longer.
"""
JUDGED = {True: "yes", False: "**no**", None: "too few rounds"}


def table(records: Sequence[dict], missing: Sequence[str], command: str) -> str:
    """Returns the whole file."""
    lines = [HEAD.format(short=plan.SHORT_EPOCHS), f"Command: `{command}`.", ""]
    for row in plan.ROWS:
        lines += _section(row, records)
    lines += ["## Goals", "", GOALS, *table_head("row", "goal", "measured", "holds")]
    lines += [_goal(goal) for goal in goals(records)]
    lines += ["", "## Faster, and no less accurate", "", BESIDE]
    lines += table_head("row", "peer", *WAYS, "either")
    lines += [
        _beside(row.name, peer, records)
        for row in plan.ROWS
        for peer in EXTRACTION_PEERS
        if row.task == plan.EXTRACTION and of(records, row.name, peer)
    ]
    if missing:
        lines += ["", *(f"{name} is not installed here: its rows were left out." for name in missing)]
    return "\n".join(lines) + "\n"


def _section(row: plan.Row, records: Sequence[dict]) -> list[str]:
    done = [record for record in records if record["row"] == row.name]
    if not done:
        return []
    sizes = done[0]["images"]
    lines = [
        f"## {row.task}, {row.checkpoint}, {row.dataset}",
        "",
        f"{done[0]['of_epochs']} epochs over {sizes['train']} pictures; {sizes['validation']} for validation, "
        f"{sizes['test']} for the test.",
        "",
        *table_head("contender", "seconds", "to the end", "epoch", "img/s in training", "test accuracy", "rounds", ""),
    ]
    lines += [_contender(row, c, done) for c in plan.CONTENDERS[row.task] if of(done, row.name, c.name)]
    return [*lines, "", _lab(done), ""]


def _lab(records: Sequence[dict]) -> str:
    fastai = sorted({r["versions"]["fastai"] for r in records} - {"not installed"})
    alone = for_accuracy_alone(records)
    elsewhere = f" Runs for accuracy alone: {lab_note(alone)}" if alone else ""
    return (
        f"{lab_note(timed(records))}{elsewhere} fastai {', '.join(fastai) or 'not installed'}. Precision: "
        f"{', '.join(sorted({r['precision'] for r in records}))}. Load of the machine before a run (1 is one busy "
        f"core): at most {max(r['load'] for r in records):.1f}."
    )


def _contender(row: plan.Row, contender: plan.Contender, records: Sequence[dict]) -> str:
    everything = of(records, row.name, contender.name)
    runs = timed(everything)
    whole = [record for record in runs if not is_scaled(record)]
    cells = [
        shown(spread([whole_seconds(record) for record in runs])),
        shown(spread([record["seconds_to_end"] for record in whole])),
        shown(spread([second for record in runs for second in record["train_seconds"]])),
        shown(spread([rate for record in runs if (rate := images_per_second(record)) is not None])),
        _accuracy(accuracies(records, row.name, contender.name)),
        str(len(runs)),
        _notes(everything),
    ]
    return table_row(contender.name, *cells)


def _notes(runs: Sequence[dict]) -> str:
    counted = timed(runs)
    scaled = sum(is_scaled(record) for record in counted)
    notes = [f"{scaled} of {len(counted)} scaled from {plan.SHORT_EPOCHS} epochs"] if scaled else []
    if len(counted) < len(runs):
        notes.append(f"{len(runs) - len(counted)} more for accuracy alone")
    return "; ".join([*notes, *sorted({record["note"] for record in runs} - {""})])


def _accuracy(values: Sequence[float]) -> str:
    if not values:
        return ""
    text = f"{statistics.mean(values):.3f}"
    return f"{text} +- {statistics.stdev(values):.3f} ({len(values)})" if len(values) > 1 else f"{text} (1)"


def shown(found: Spread | None) -> str:
    """Returns a median with its range."""
    if found is None:
        return ""
    digits = 0 if found.median >= 100 else 1 if found.median >= 10 else 2
    if found.rounds == 1:
        return f"{found.median:.{digits}f}"
    return f"{found.median:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _goal(goal: Goal) -> str:
    runs = f" ({goal.runs})" if goal.runs else ""
    return f"| {goal.row} | {goal.text} | {_measured(goal)}{runs} | {JUDGED[goal.holds]} |"


def _measured(goal: Goal) -> str:
    return f"{goal.measured:+.3f}" if isinstance(goal.measured, float) else shown(goal.measured) or "not yet"


def _beside(row: str, peer: str, records: Sequence[dict]) -> str:
    cells, held = [], []
    for ours in WAYS:
        time, accuracy = beside(records, row, peer, ours)
        held.append(both_hold(time, accuracy))
        cells.append(f"{_measured(time)}; {_measured(accuracy)}: {JUDGED[held[-1]]}")
    return table_row(row, peer, *cells, JUDGED[either_holds(held)])
