"""Whether a run may be published by its licences, and the user's later word about them.

Knows the verdict in `run.json` and how it is reached again with statements that the run did not have. Does not judge
(`hf_transfer.publishing.license_check`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_transfer.errors import UserError
from hf_transfer.publishing.card import CARD, render_card, write_card
from hf_transfer.publishing.license_check import LicenseQuestion, check_licenses
from hf_transfer.publishing.license_verdict import Grade, LicenseVerdict
from hf_transfer.report import read_run, to_plain, write_json


class PublishingRefusal(UserError):
    """The licences forbid publishing, or a person must decide first."""

    def __init__(self, verdict: LicenseVerdict | None, run: Path | None):
        grade = verdict.publishing if verdict is not None else Grade.REVIEW
        self.exit_code = grade.exit_code
        why = [note for note in verdict.notes if note.startswith(("Not published", "What settles"))] if verdict else []
        said = "forbidden by the licences" if grade is Grade.FORBIDDEN else "not decided: a person must look first"
        listed = "".join(f"\n  {note}" for note in why) or "\n  The licences of this run were never checked."
        details = "`hf-transfer license` with the same model and data for the details"
        again = f"`hf-transfer push {run}` with what settles it, as named above; or {details}"
        super().__init__(
            f"Publishing this model is {said}.{listed}",
            "models made of works whose licences let what is made of them be shared; unknown is never permission",
            again if run is not None and grade is Grade.REVIEW and why else details,
        )


def check_publishing(verdict: LicenseVerdict | None, run: Path | None = None) -> None:
    """Refuses what may not be published.

    Raises:
        PublishingRefusal: with exit code 4 where it is forbidden, 3 where a person must decide.
    """
    if verdict is None or verdict.publishing.exit_code:
        raise PublishingRefusal(verdict, run)


def verdict_of_report(report: Mapping[str, Any]) -> LicenseVerdict | None:
    """Returns the verdict that a report holds; `None` where the licences were never checked."""
    facts = report.get("license")
    return LicenseVerdict.from_dict(facts) if facts else None


def restate_licenses(
    run: Path,
    data_license: str | None,
    overrides: Sequence[str] = (),
    evidence: Sequence[str] = (),
    chosen: str | None = None,
) -> LicenseVerdict:
    """Judges the works of a finished run again with the user's word; writes it into `run.json` and the card.

    A card that somebody has written on is left alone.

    Args:
        run (`Path`):
            The folder of a finished run.
        data_license (`str`, *optional*):
            Licence of pictures on this disk; what the run said where it is left out.
        overrides (`Sequence[str]`, *optional*):
            `WORK=ID`, beside those of the run.
        evidence (`Sequence[str]`, *optional*):
            One for each.
        chosen (`str`, *optional*):
            What to publish under; what the run said where it is left out.

    Raises:
        UserError: as `check_licenses` does.
    """
    report = read_run(run)
    config, facts = report["config"], report.get("checkpoint", {})
    question = LicenseQuestion(
        model=config["model"],
        model_revision=facts.get("revision") or config.get("model_revision"),
        dataset=config["dataset"],
        dataset_revision=report.get("data", {}).get("revision") or config.get("dataset_revision"),
        use=config.get("use"),
        data_license=data_license or config.get("data_license"),
        overrides=(*(config.get("license_override") or ()), *overrides),
        evidence=(*(config.get("license_evidence") or ()), *evidence),
        data_report_only=bool(config.get("data_license_report_only")),
        license=chosen or config.get("license"),
    )
    verdict = check_licenses(question)
    restated = {**report, "license": dataclasses.asdict(verdict)}
    ours = (run / CARD).is_file() and (run / CARD).read_text(encoding="utf-8", errors="replace") == render_card(report)
    write_json(restated, run / "run.json")
    if ours:
        write_card(to_plain(restated), run)
    return verdict
