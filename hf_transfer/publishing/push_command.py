"""The command `hf-transfer push`: publish a finished run, or finish a push that was interrupted.

Knows its flags and what it prints. Does not know how a push is done (`hf_transfer.publishing.push`). Everything heavy
is imported after the command line has been read.
"""

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hf_transfer.command_parser import CommandParser
from hf_transfer.errors import UserError

if TYPE_CHECKING:
    from hf_transfer.publishing.push_request import PushState


def push_parser() -> CommandParser:
    """Returns the parser of `hf-transfer push`."""
    parser = CommandParser(
        prog="hf-transfer push",
        description="Publish a finished run on the Hub: model, card, figures and metrics in one commit, downloaded "
        "again and compared. The same command takes up what was interrupted. Exit code 0: done; 1: the Hub or the "
        "network failed; 2: a mistake; 3: the licences need a person's decision; 4: they forbid it.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="Folder of a finished run.")
    add("--repo-id", "--repo_id", dest="repo_id", help="Where to: owner/name. As before where it is left out.")
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument("--private", dest="private", action="store_true", default=None, help="The default.")
    visibility.add_argument("--public", dest="private", action="store_false", help="For everybody to see.")
    add("--create_pr", "--create-pr", action="store_true", default=None, help="Open a pull request instead.")
    add("--branch", help="Commit to this branch, which is made where it is missing.")
    add("--tag", help="Give the commit a tag.")
    add("--collection", help="Add the repository to a collection, by its slug, or by a title.")
    add(
        "--no_widget_images",
        "--no-widget-images",
        dest="widget_images",
        action="store_false",
        default=None,
        help="Publish no test pictures, even where the licence of the data allows it.",
    )
    add("--license", help="Publish under this licence: as strict as what the works ask, or stricter.")
    add("--data_license", help="Licence of pictures on this disk, where the run did not say; `own` if yours.")
    add("--license_override", nargs="+", default=[], metavar="WORK=ID", help="Your word on a work; needs evidence.")
    add("--license_evidence", nargs="+", default=[], metavar="LINK_OR_FILE", help="One for each override.")
    add("--json", action="store_true", help="Print the result as JSON and nothing else.")
    add("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def push_command(argv: Sequence[str]) -> int:
    """Pushes a run.

    Args:
        argv (`Sequence[str]`):
            What follows `hf-transfer push`.

    Returns:
        `int`: 0.

    Raises:
        [`~hf_transfer.errors.UserError`]: with exit code 1 where the Hub failed, 3 or 4 where the licences do not
            allow it, else 2.
    """
    options = push_parser().parse(argv)
    run = Path(options.run).expanduser()
    if not run.is_dir():
        raise UserError(f"There is no folder {run}.", "the folder of a finished run")
    from hf_transfer.publishing.push import push_run
    from hf_transfer.publishing.push_request import resolve_request

    if options.data_license or options.license_override or options.license:
        from hf_transfer.publishing.push_permission import restate_licenses

        restate_licenses(
            run, options.data_license, options.license_override, options.license_evidence, options.license
        )
    names = ("repo_id", "private", "create_pr", "branch", "tag", "collection", "widget_images")
    request = resolve_request(run, {name: getattr(options, name) for name in names})
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        state = push_run(request)
    if options.json:
        print(json.dumps(asdict(state), indent=1, ensure_ascii=False))
    else:
        print(format_state(state))
    return 0


def format_state(state: "PushState") -> str:
    """Returns what a push has come to, for people to read."""
    who = "private" if state.private else "public"
    lines = [f"{'There already' if state.already_there else 'Published'} ({who}): {state.commit_url}"]
    if state.pull_request:
        lines.append(f"Pull request: {state.pull_request}")
    if state.removed:
        lines.append(f"Removed, of an earlier push: {', '.join(state.removed)}")
    if state.proof:
        lines.append(
            f"Downloaded afresh: {state.proof['files']} files identical; transformers alone gives the same scores on "
            f"{state.proof['pictures']} pictures (largest difference {state.proof['largest_difference']:.1e})"
        )
    lines += [f"Tag: {state.tag}"] if state.tag else []
    lines += [f"Collection: {state.collection}"] if state.collection else []
    return "\n".join([*lines, *(f"note: {note}" for note in state.notes)])
