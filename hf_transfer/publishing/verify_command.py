"""The command `hf-transfer verify`: is this folder still what the run left?

Knows what is printed, and the exit code. Does not compare anything (`hf_transfer.publishing.verification`). Everything
heavy is imported after the command line has been read.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_transfer.command_parser import CommandParser

if TYPE_CHECKING:
    from hf_transfer.publishing.verification import Check


def verify_parser() -> CommandParser:
    """Returns the parser of `hf-transfer verify`."""
    parser = CommandParser(
        prog="hf-transfer verify",
        description="Compute the hashes of a run's files again, and compare metrics, history and card with run.json. "
        "Exit code 0: all is as the run left it; 1: something differs.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", metavar="DIR", help="Folder of a finished run.")
    add("--dataset", help="Compare the pictures too: the data set of the run, or a copy of it.")
    add("--json", action="store_true", help="Print every comparison as JSON and nothing else.")
    add("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def verify_command(argv: Sequence[str]) -> int:
    """Compares a run's folder with its `run.json`.

    Args:
        argv (`Sequence[str]`):
            What follows `hf-transfer verify`.

    Returns:
        `int`: 0 where all holds, else 1.

    Raises:
        [`~hf_transfer.errors.UserError`]: for every mistake that the user can mend.
    """
    options = verify_parser().parse(argv)
    folder = Path(options.run).expanduser()

    from hf_transfer.publishing.verification import verify_run
    from hf_transfer.report import read_run

    checks = verify_run(folder, read_run(folder), options.dataset)
    wrong = [check for check in checks if not check.holds]
    if options.json:
        rows = [
            {"what": check.what, "holds": check.holds, "expected": check.expected, "found": check.found}
            for check in checks
        ]
        print(json.dumps({"run": str(folder), "holds": not wrong, "checks": rows}, indent=2))
    elif wrong:
        print(f"{folder}: {len(wrong)} of {len(checks)} comparisons fail.\n{format_checks(wrong)}")
    else:
        seen = "" if options.dataset else " The pictures were not looked at: --dataset does that."
        print(f"{folder}: all {len(checks)} comparisons hold.{seen}")
    return 1 if wrong else 0


def format_checks(checks: "Sequence[Check]") -> str:
    """Returns what differs as a table."""
    from hf_transfer.publishing.card_text import plain

    rows = [("what", "recorded", "found"), *((plain(c.what), plain(c.expected), plain(c.found)) for c in checks)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {what:<{widths[0]}}  {old:<{widths[1]}}  {new}" for what, old, new in rows)
