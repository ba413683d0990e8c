"""The licence check: from what a run is made of to one verdict, before any compute is spent.

Knows the order of the steps: collect, judge, decide what may be published, list what is owed. Each is made next door.
It is a check of what works say about themselves, not legal advice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError
from hf_transfer.publishing.license_chain import Chain, is_hub_id
from hf_transfer.publishing.license_files import binding_links, plan_files
from hf_transfer.publishing.license_judgement import COMMERCIAL, RESEARCH, Judgement, judge
from hf_transfer.publishing.license_obligations import list_obligations
from hf_transfer.publishing.license_overrides import match_overrides, read_choice, read_license, read_overrides
from hf_transfer.publishing.license_sources import Work
from hf_transfer.publishing.license_table import LicenseFacts
from hf_transfer.publishing.license_verdict import Grade, LicenseLink, LicenseVerdict, Override, worst
from hf_transfer.publishing.outgoing_license import choose_outgoing, decide_outgoing
from hf_transfer.report import Decision

DISCLAIMER = "This is a check of tags and texts that works carry, not legal advice."


@dataclass(frozen=True, kw_only=True)
class LicenseQuestion:
    """What the verdict is asked for."""

    model: str
    model_revision: str | None = None
    dataset: str | None = None
    dataset_revision: str | None = None
    use: str | None = None
    """`research`, `commercial`, or `None` where the user declared none."""
    data_license: str | None = None
    """The user's own statement about pictures on this disk."""
    overrides: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    data_report_only: bool = False
    license: str | None = None
    """What the user wants to publish under, in place of what the works ask at least."""


class LicenseRefusal(UserError):
    """The declared use is not allowed, or nobody can say whether it is."""

    def __init__(self, verdict: LicenseVerdict):
        self.exit_code = verdict.grade.exit_code
        super().__init__(*_refusal_words(verdict))


def check_licenses(question: LicenseQuestion) -> LicenseVerdict:
    """Reads what all works of a chain say about their licences, and judges them.

    Args:
        question (`LicenseQuestion`):
            The works, the declared use, and what the user adds.

    Returns:
        `LicenseVerdict`

    Raises:
        UserError: for a model or data set that surely does not exist, or a mistake in an override.
    """
    overrides = read_overrides(question.overrides, question.evidence)
    chosen = read_choice(question.license) if question.license else None
    if question.dataset is None and (question.data_license or question.dataset_revision):
        flag = "--data_license" if question.data_license else "--dataset_revision"
        raise UserError(f"{flag} was given without a data set.", hint=f"--dataset FOLDER_OR_ID, or drop {flag}")
    chain = Chain()
    chain.add_model(question.model, question.model_revision)
    if question.dataset is not None:
        chain.add_dataset(question.dataset, question.dataset_revision, _stated(question))
    return verdict_of(
        chain.works,
        question.use,
        overrides=(*_carried(chain.overrides, overrides), *overrides),
        data_report_only=question.data_report_only,
        chosen=chosen,
        notes=chain.notes,
    )


def verdict_of(
    works: Sequence[Work],
    use: str | None,
    *,
    overrides: Sequence[Override] = (),
    data_report_only: bool = False,
    chosen: LicenseFacts | None = None,
    notes: Sequence[str] = (),
) -> LicenseVerdict:
    """Judges works that have been read.

    Args:
        works (`Sequence[Work]`):
            The checkpoint first.
        use (`str`, *optional*):
            `research` or `commercial`; where it is left out, research is judged.
        overrides (`Sequence[Override]`, *optional*):
            The user's word about some of the works.
        data_report_only (`bool`, *optional*, defaults to `False`):
            Whether the licences of data are shown only. Whether weights adapt their data is open in law; by default
            they are taken to.
        chosen (`LicenseFacts`, *optional*):
            What the user wants to publish under.
        notes (`Sequence[str]`, *optional*):
            What was noticed on the way.

    Raises:
        UserError: where the user's choice leaves out what a work asks.
    """
    by_work = match_overrides(overrides, [work.work for work in works])
    judged = [judge(work, use or RESEARCH, by_work.get(work.work)) for work in works]
    binding = [item for item in judged if not (data_report_only and item.link.role == "dataset")]
    decision = choose_outgoing(binding, chosen) if chosen else decide_outgoing(binding)
    outgoing = decision.outgoing
    files = plan_files([item.link for item in binding], outgoing) if outgoing else ()
    if outgoing is not None:
        outgoing = replace(outgoing, files=tuple(file.name for file in files))
    return LicenseVerdict(
        use=use,
        grade=worst([item.link.grade for item in binding]),
        publishing=decision.grade,
        links=tuple(item.link for item in judged),
        obligations=list_obligations(binding, outgoing, files),
        overrides=tuple(overrides),
        outgoing=outgoing,
        notes=(*_notes(judged, decision.reason, outgoing is None, data_report_only), *notes),
        data_report_only=data_report_only,
    )


def check_run(config: FinetuneConfig) -> LicenseVerdict:
    """Checks the licences of a run, and stops it where a declared commercial use is not known to be allowed.

    Raises:
        LicenseRefusal: with exit code 4 where the use is forbidden, 3 where a person must decide.
        UserError: as `check_licenses` does.
    """
    verdict = check_licenses(
        LicenseQuestion(
            model=config.model,
            model_revision=config.model_revision,
            dataset=config.dataset,
            dataset_revision=config.dataset_revision,
            use=config.use,
            data_license=config.data_license,
            overrides=tuple(config.license_override or ()),
            evidence=tuple(config.license_evidence or ()),
            data_report_only=config.data_license_report_only,
            license=config.license,
        )
    )
    if config.use == COMMERCIAL and verdict.grade.exit_code:
        raise LicenseRefusal(verdict)
    if config.strategy == "scratch":
        note = "From scratch none of the checkpoint's weights are taken; its licence is counted all the same."
        verdict = replace(verdict, notes=(*verdict.notes, note))
    return verdict


def license_decision(verdict: LicenseVerdict) -> Decision:
    """Returns the row of the decision table."""
    use = f"for {verdict.use} use" if verdict.use else f"for {RESEARCH}, since --use was not given"
    deciding = [link for link in binding_links(verdict) if link.grade is verdict.grade]
    why = f"{deciding[0].work}: {deciding[0].reason}" if deciding else "no work binds the model"
    outgoing = verdict.outgoing
    name = f"published under {outgoing.name or outgoing.license}" if outgoing else f"publishing: {verdict.publishing}"
    return Decision("licences", str(verdict.grade), f"{use}; {why}; {name}")


def _stated(question: LicenseQuestion) -> str | None:
    if question.data_license is None:
        return None
    stated, dataset = read_license(question.data_license, "--data_license"), question.dataset or ""
    if not Path(dataset).expanduser().exists() and is_hub_id(dataset):
        raise UserError(
            f"--data_license {question.data_license} was given, but {dataset!r} is somebody else's data set.",
            "--data_license for pictures on this disk",
            f"--license_override {dataset}={stated} --license_evidence LINK_OR_FILE",
        )
    return stated


def _carried(earlier: Sequence[Override], overrides: Sequence[Override]) -> list[Override]:
    """Returns the overrides of earlier runs that the user has not replaced."""
    named = {override.work for override in overrides}
    return [override for override in dict.fromkeys(earlier) if override.work not in named]


def _notes(judged: Sequence[Judgement], reason: str, unpublished: bool, data_report_only: bool) -> list[str]:
    notes = [f"Not published as things stand: {reason}."] if unpublished else []
    for item in judged:
        if item.link.conflict:
            notes.append(f"Sources disagree about {item.link.work}: {item.link.reason}.")
        if item.link.grade is Grade.REVIEW:
            notes.append(f"What settles {item.link.work}: {_way_out(item.link)}.")
    if data_report_only:
        notes.append("Licences of data are shown only, as asked; whether they bind the weights is open in law.")
    return notes


def _way_out(link: LicenseLink) -> str:
    """Returns what to type about a work that only a person can judge."""
    if link.role == "dataset" and link.revision is None and not link.statements and link.problem is None:
        return "--data_license own where the pictures are yours, or the id of their licence such as cc-by-4.0"
    return (
        f"--license_override {link.work}=ID --license_evidence LINK_OR_FILE, once you know its terms or hold a "
        "permission (`own`)"
    )


def _refusal_words(verdict: LicenseVerdict) -> tuple[str, str, str]:
    links = [link for link in binding_links(verdict) if link.grade is verdict.grade]
    listed = "\n".join(f"  {link.work} ({link.role}): {link.reason}" for link in links)
    ways_out = "\n     ".join(_way_out(link) for link in links)
    if verdict.grade is Grade.FORBIDDEN:
        given = f"--use {verdict.use} is forbidden by what this run is made of:\n{listed}\n{DISCLAIMER}"
        return given, f"--use {RESEARCH}, or works whose licences permit commercial use", ways_out
    given = f"Nobody can say whether --use {verdict.use} is allowed:\n{listed}\n{DISCLAIMER}"
    return given, "works whose licences are known; unknown is never taken for permission", ways_out
