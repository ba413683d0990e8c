"""The command `hf-transfer card`: the model card of a run, rendered again from its `run.json`.

Knows what is printed. Does not render (`hf_transfer.publishing.card`) or judge (`hf_transfer.publishing.card_lint`).
Everything heavy is imported after the command line has been read.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hf_transfer.command_parser import CommandParser


def card_parser() -> CommandParser:
    """Returns the parser of `hf-transfer card`."""
    parser = CommandParser(
        prog="hf-transfer card",
        description="Render the model card of a run again from its run.json, and check it. Exit code 0: all is well; "
        "1: the card was written, and something is wrong with it.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="Folder of a finished run.")
    add("--json", action="store_true", help="Print what was written and found as JSON and nothing else.")
    add("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def card_command(argv: Sequence[str]) -> int:
    """Writes the card of a run.

    Args:
        argv (`Sequence[str]`):
            What follows `hf-transfer card`.

    Returns:
        `int`: 0, or 1 where the card breaks a rule.

    Raises:
        [`~hf_transfer.errors.UserError`]: for every mistake that the user can mend.
    """
    options = card_parser().parse(argv)
    folder = Path(options.run).expanduser()

    from hf_transfer.publishing.card import CARD, render_card, write_card
    from hf_transfer.publishing.card_lint import lint_card
    from hf_transfer.report import read_run

    report = read_run(folder)
    path = folder / CARD
    before = path.read_bytes() if path.is_file() else None
    text = render_card(report)
    changed = before != text.encode("utf-8")
    if changed:
        write_card(report, folder)
    problems = lint_card(text, folder, report)
    if options.json:
        answer = {"card": str(path), "changed": changed, "problems": problems}
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print(f"{path}: {'written' if changed else 'was as run.json says already'}")
        for problem in problems:
            print(f"  problem: {problem}")
    return 1 if problems else 0
