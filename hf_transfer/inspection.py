"""The command `hf-transfer inspect`: the layer groups of a checkpoint, from its configuration alone.

Knows how groups are shown, and which rate each has under a strategy. Does not load weights: the network is built on
torch's meta device. Everything heavy is imported after the command line has been read.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_transfer.command_parser import CommandParser

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STRATEGIES = ("feature-extraction", "partial", "progressive", "lp-ft", "full", "scratch")


def inspect_parser() -> CommandParser:
    """Returns the parser of `hf-transfer inspect`."""
    parser = CommandParser(
        prog="hf-transfer inspect",
        description="List the layer groups of a checkpoint from stem to head, with their sizes and learning rates.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", required=True, help="Hub id, local folder, or `quickstart`; its config.json is enough.")
    add("--model_revision", help="Branch, tag or commit of the checkpoint on the Hub.")
    add("--granularity", choices=("auto", "stage", "block"), default="auto", help="How fine. Default: auto.")
    add("--strategy", choices=STRATEGIES, default="full", help="Whose rates and order are shown. Default: full.")
    add(
        "--train_last", type=int, help="For `partial` and `progressive`: how many groups besides the head are trained."
    )
    add("--learning_rate", type=float, help="Rate of the backbone; by default that of the strategy.")
    add("--lr_head", type=float, help="Rate of the head; by default measured in the run.")
    add("--layer_decay", default="auto", help="Rate of each group as a share of the one above it. Default: auto.")
    add("--lr_groups", nargs="+", help="Rates by name of groups or parameters, such as `stem=0`.")
    add("--json", action="store_true", help="Print the groups, with all names in them, as JSON and nothing else.")
    add("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def inspect_command(argv: Sequence[str]) -> int:
    """Prints the layer groups of a checkpoint.

    Args:
        argv (`Sequence[str]`):
            What follows `hf-transfer inspect`.

    Returns:
        `int`: 0.

    Raises:
        [`~hf_transfer.errors.UserError`]: for every mistake that the user can mend.
    """
    options = inspect_parser().parse(argv)
    model = model_without_weights(options.model, options.model_revision)
    rows = group_rows(
        model,
        granularity=None if options.granularity == "auto" else options.granularity,
        strategy=options.strategy,
        train_last=options.train_last,
        learning_rate=options.learning_rate,
        lr_head=options.lr_head,
        layer_decay=options.layer_decay,
        lr_groups=options.lr_groups,
    )
    if options.json:
        print(json.dumps({"model": options.model, "architecture": type(model).__name__, "groups": rows}, indent=1))
    else:
        print(format_groups(rows, options.model))
    return 0


def model_without_weights(model: str, revision: str | None = None) -> "PreTrainedModel":
    """Builds the network of a checkpoint on the meta device, with the checkpoint's own number of labels."""
    from hf_transfer.models.configuration import plan_model
    from hf_transfer.models.head import meta_twin
    from hf_transfer.models.source import find_files

    # As many labels as most data sets have at least; how many does not change the groups.
    plan = plan_model(find_files(model, revision, with_weights=False), ("one", "other"))
    return meta_twin(plan.model_class, plan.config).eval()


def group_rows(
    model: "PreTrainedModel",
    *,
    granularity: Any = None,
    strategy: Any = "full",
    train_last: int | None = None,
    learning_rate: float | None = None,
    lr_head: float | None = None,
    layer_decay: str = "auto",
    lr_groups: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Describes every layer group: name, size, whether it learns from the first step, and its peak rates.

    Args:
        model (`PreTrainedModel`):
            A classifier, on any device.
        granularity, strategy, train_last, learning_rate, lr_head, layer_decay, lr_groups:
            As the options of the command line.

    Returns:
        `list[dict]`: from stem to head, with `name`, `parameters`, `learns_first`, `rates` (`None` where it is
        measured in the run), `parameter_names` and `module_names`.
    """
    from hf_transfer.models.layer_groups import layer_groups
    from hf_transfer.training.layer_decay import plan_layer_decay
    from hf_transfer.training.layer_rates import parameter_rates
    from hf_transfer.training.rates import HEAD_TO_BACKBONE, LearningRates, default_backbone_rate
    from hf_transfer.training.strategies import Unfreezing

    groups = layer_groups(model, granularity)
    backbone = default_backbone_rate(strategy, model).value if learning_rate is None else learning_rate
    head = lr_head
    if head is None and (learning_rate is not None or strategy == "scratch"):
        head = backbone * (1.0 if strategy in ("scratch", "feature-extraction") else HEAD_TO_BACKBONE)
    # A rate below zero stands for the one that only the run can measure; no wish can be that.
    rates = parameter_rates(
        groups,
        LearningRates(backbone, -1.0 if head is None else head, "", ""),
        plan_layer_decay(layer_decay, strategy, model).per_group(len(groups)),
        lr_groups,
    )
    first = Unfreezing(strategy=strategy, train_last=train_last).first_open(len(groups))
    rows = []
    for number, group in enumerate(groups):
        found = sorted({rates[name] for name in group.parameter_names})
        rows.append(
            {
                "name": group.name,
                "parameters": sum(model.get_parameter(name).numel() for name in group.parameter_names),
                "learns_first": number in first,
                "rates": [None if rate < 0 else rate for rate in found],
                "parameter_names": list(group.parameter_names),
                "module_names": list(group.module_names),
            }
        )
    return rows


def format_groups(rows: Sequence[dict[str, Any]], model: str) -> str:
    """Returns the groups as a table of aligned columns, the stem first."""
    total = sum(row["parameters"] for row in rows)
    lines = [("", "group", "parameters", "share", "learns", "peak rate", "modules")]
    for number, row in enumerate(rows):
        rates = " to ".join("measured" if rate is None else f"{rate:.3g}" for rate in row["rates"])
        share = f"{100 * row['parameters'] / total:.1f} %"
        learns = "at once" if row["learns_first"] else "later or never"
        lines.append(
            (str(number), row["name"], f"{row['parameters']:,}", share, learns, rates, _shown(row["module_names"]))
        )
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    table = [
        "  ".join(
            cell.rjust(width) if column in (2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, [*widths, 0], strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([f"{model}: {len(rows)} layer groups, {total:,} parameters", *table])


def _shown(module_names: Sequence[str], limit: int = 3) -> str:
    """Returns the outermost of the modules."""
    inside = set(module_names)
    outermost = [name for name in module_names if not any(around in inside for around in _around(name))]
    more = f" and {len(outermost) - limit} more" if len(outermost) > limit else ""
    return ", ".join(outermost[:limit]) + more


def _around(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
