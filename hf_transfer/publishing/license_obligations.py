"""What the licences of a chain ask of whoever passes the model on, and how each duty is met.

Knows duties by the columns of the table. Does not decide under what a model is published
(`hf_transfer.publishing.outgoing_license`): a duty that only the user can keep, or that nothing here meets, says so.
"""

from collections.abc import Sequence

from hf_transfer.publishing.license_files import FOLDER, NOTICE, PlannedFile
from hf_transfer.publishing.license_judgement import Judgement
from hf_transfer.publishing.license_sources import is_notice_file
from hf_transfer.publishing.license_table import OTHER, OWN, LicenseFacts
from hf_transfer.publishing.license_verdict import Grade, Obligation, OutgoingLicense

YOURS = "yours to keep; nothing here can check it"
NOT_PUBLISHED = "not met: nothing is published until this is decided"


def list_obligations(
    judged: Sequence[Judgement], outgoing: OutgoingLicense | None, files: Sequence[PlannedFile]
) -> tuple[Obligation, ...]:
    """Lists the duties of every work whose licence is known and permits something.

    Args:
        judged (`Sequence[Judgement]`):
            The works that bind the model.
        outgoing (`OutgoingLicense`, *optional*):
            Under what it is published, if it is.
        files (`Sequence[PlannedFile]`):
            What travels along.

    Returns:
        `tuple[Obligation, ...]`: in the order of the works.
    """
    found = []
    for judgement in judged:
        facts = judgement.facts
        if facts.id == OWN or not facts.is_known or judgement.link.grade is Grade.FORBIDDEN:
            continue
        duties = [
            *_attribution(facts, outgoing),
            *_text(judgement, outgoing, files),
            *_notice(judgement, outgoing),
            *_same_terms(facts, outgoing),
            *_limits(facts),
        ]
        found += [Obligation(judgement.link.work, duty, how_met) for duty, how_met in duties]
    return tuple(found)


def _attribution(facts: LicenseFacts, outgoing: OutgoingLicense | None) -> list[tuple[str, str]]:
    if facts.attribution != "yes":
        return []
    duty = f"name its authors, {facts.id} and what was changed"
    return [(duty, f"{NOTICE}, and the licence chain in the card" if outgoing else NOT_PUBLISHED)]


def _text(
    judgement: Judgement, outgoing: OutgoingLicense | None, files: Sequence[PlannedFile]
) -> list[tuple[str, str]]:
    facts = judgement.facts
    if facts.ship_licence == "link":
        how = f"link in {NOTICE}" if outgoing else NOT_PUBLISHED
        return [(f"pass on the text of {facts.id}, or a link to it", how)]
    if facts.ship_licence != "yes":
        return []
    duty = f"pass on the text of {facts.id}"
    if outgoing is None:
        return [(duty, NOT_PUBLISHED)]
    texts = [file.name for file in files if file.link is judgement.link and not is_notice_file(file.source or "")]
    texts += [file.name for file in files if file.link is None and file.source == facts.id]
    how = ", ".join(texts) or f"not met: the work brings no text; add {facts.source} as {FOLDER}/{facts.id}.txt"
    return [(duty, how)]


def _notice(judgement: Judgement, outgoing: OutgoingLicense | None) -> list[tuple[str, str]]:
    names = [name for name in judgement.link.files if is_notice_file(name)]
    return [(f"pass on its {name}", f"in {FOLDER}/" if outgoing else NOT_PUBLISHED) for name in names]


def _same_terms(facts: LicenseFacts, outgoing: OutgoingLicense | None) -> list[tuple[str, str]]:
    if facts.share_alike == "data":
        return [(f"keep copies of the data under {facts.id}", "the pictures are not part of what is published")]
    if not facts.keeps_terms:
        return []
    how = NOT_PUBLISHED
    if outgoing is not None:
        how = f"published under {outgoing.name if outgoing.license == OTHER else outgoing.license}"
    restricted = facts.share_alike == "restrictions" or facts.use_limits == "yes" and facts.share_alike == "no"
    duty = f"bind whoever gets the model to the use restrictions of {facts.id}"
    return [(duty if restricted else f"keep what is made of it under {facts.id}", how)]


def _limits(facts: LicenseFacts) -> list[tuple[str, str]]:
    duties = []
    if facts.non_commercial:
        duties.append(("no commercial use", YOURS))
    if facts.condition == "use":
        duties.append((f"keep to the use restrictions of {facts.id} ({facts.source})", YOURS))
    if facts.condition == "user":
        duties.append((f"fulfil the conditions of {facts.id}: {facts.notes}", YOURS))
    return duties
