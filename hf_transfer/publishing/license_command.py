"""The command `hf-transfer license`: the verdict on a chain, before anything is trained.

Knows how a verdict is printed. Does not reach it (`hf_transfer.publishing.license_check`). Everything heavy is
imported after the command line has been read.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_transfer.command_parser import CommandParser

if TYPE_CHECKING:
    from hf_transfer.publishing.license_verdict import LicenseLink, LicenseVerdict


def license_parser() -> CommandParser:
    """Returns the parser of `hf-transfer license`."""
    parser = CommandParser(
        prog="hf-transfer license",
        description="Check the licences of a checkpoint, its bases and a data set for a use and for publishing. Exit "
        "code 0: allowed; 3: a person must decide; 4: forbidden. A check of tags, not legal advice.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", required=True, help="Hub id, local folder, or `quickstart`.")
    add("--model_revision", help="Branch, tag or commit of the checkpoint on the Hub.")
    add("--dataset", help="Hub data set id, folder, archive, table, or `digits`.")
    add("--dataset_revision", help="Branch, tag or commit of the data set on the Hub.")
    add("--use", choices=("research", "commercial"), required=True, help="What the model is for.")
    add("--data_license", help="Licence of pictures on this disk, by your own word; `own` where they are yours.")
    add("--license_override", nargs="+", default=[], metavar="WORK=ID", help="Your word on a work; needs evidence.")
    add("--license_evidence", nargs="+", default=[], metavar="LINK_OR_FILE", help="One for each override.")
    add("--license", help="Publish under this licence: as strict as what the works ask, or stricter.")
    add("--data_license_report_only", action="store_true", help="Show the licences of data, but do not count them.")
    add("--json", action="store_true", help="Print the verdict as JSON and nothing else.")
    add("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def license_command(argv: Sequence[str]) -> int:
    """Prints the verdict.

    Args:
        argv (`Sequence[str]`):
            What follows `hf-transfer license`.

    Returns:
        `int`: 0 allowed, 3 needs review, 4 forbidden.

    Raises:
        [`~hf_transfer.errors.UserError`]: for every mistake that the user can mend.
    """
    options = license_parser().parse(argv)
    from hf_transfer.publishing.license_check import DISCLAIMER, LicenseQuestion, check_licenses
    from hf_transfer.report import to_plain

    verdict = check_licenses(
        LicenseQuestion(
            model=options.model,
            model_revision=options.model_revision,
            dataset=options.dataset,
            dataset_revision=options.dataset_revision,
            use=options.use,
            data_license=options.data_license,
            overrides=tuple(options.license_override),
            evidence=tuple(options.license_evidence),
            data_report_only=options.data_license_report_only,
            license=options.license,
        )
    )
    if options.json:
        print(json.dumps({**to_plain(verdict), "disclaimer": DISCLAIMER}, indent=1, ensure_ascii=False))
    else:
        print(f"{format_verdict(verdict)}\n\n{DISCLAIMER}")
    return verdict.grade.exit_code


def format_verdict(verdict: "LicenseVerdict") -> str:
    """Returns a verdict for people to read: the outcome, each work with what was said of it, duties and notes."""
    from hf_transfer.publishing.license_sources import one_line

    lines = [f"{verdict.use or 'research'} use: {verdict.grade}", f"publishing: {verdict.publishing}{_under(verdict)}"]
    for link in verdict.links:
        lines += ["", *_link_lines(link)]
    if verdict.obligations:
        lines += ["", "What is owed, and how it is met:"]
        lines += [f"  {one_line(duty.work)}: {duty.duty} -> {duty.how_met}" for duty in verdict.obligations]
    for override in verdict.overrides:
        lines += ["", f"By your word: {override.work} is {override.license} ({override.evidence}, {override.date})"]
    if verdict.notes:
        lines += ["", *(f"note: {note}" for note in verdict.notes)]
    return "\n".join(lines)


def _under(verdict: "LicenseVerdict") -> str:
    outgoing = verdict.outgoing
    if outgoing is None:
        return ""
    name = f"{outgoing.license} ({outgoing.name})" if outgoing.name else outgoing.license
    return f", under {name}: {outgoing.reason}"


def _link_lines(link: "LicenseLink") -> list[str]:
    at = f"@{link.revision[:8]}" if link.revision else ""
    lines = [f"{link.work}{at} ({link.role}): {link.grade}", f"  {link.reason}"]
    for said in link.statements:
        name = f" ({said.name})" if said.name else ""
        lines.append(f"  {said.source}: {said.license or 'says nothing'}{name} [{said.evidence}]")
    return lines
