"""Under what a fine-tuned model may be published, by the licences of the works that it was made from.

Knows the rules: no-derivatives is not published; share-alike, use restrictions and vendors' terms are kept;
non-commercial data never leave the base's tag standing; two licences that each ask for themselves are a conflict; and
where all is permissive, the base's licence stays. The user may choose a stricter one, never a looser one.
Does not know files or obligations (`hf_transfer.publishing.license_files`,
`hf_transfer.publishing.license_obligations`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_transfer.errors import UserError
from hf_transfer.publishing.license_judgement import Judgement, resolved
from hf_transfer.publishing.license_table import OTHER, OWN, LicenseFacts, excludes, may_become
from hf_transfer.publishing.license_verdict import Grade, OutgoingLicense, worst


@dataclass(frozen=True)
class Decision:
    """What may be published, and how that was found."""

    grade: Grade
    outgoing: OutgoingLicense | None
    """Without its files."""
    reason: str


def decide_outgoing(judged: Sequence[Judgement]) -> Decision:
    """Decides under what a model made of these works may be published.

    Args:
        judged (`Sequence[Judgement]`):
            The works that bind the model: the checkpoint first, then its bases and the data.

    Returns:
        [`Decision`]: without an outgoing licence where the model may not be published, or a person must decide.
    """
    grade = worst([judgement.publishing for judgement in judged])
    if grade in (Grade.REVIEW, Grade.FORBIDDEN):
        works = ", ".join(judgement.link.work for judgement in judged if judgement.publishing is grade)
        if grade is Grade.FORBIDDEN:
            return Decision(grade, None, f"what is made of {works} may not be shared")
        return Decision(grade, None, f"nobody can say what may be done with {works}")
    binding = _binding(judged)
    if not binding:
        return _permissive(judged, grade)
    target = next((facts for facts in binding if _satisfies_all(facts, binding)), None)
    if target is None and not any(facts.share_alike in ("same", "same+network", "weak") for facts in binding):
        return Decision(grade, _joined(binding), "each of these sets of terms travels along")
    names = " and ".join(facts.id for facts in binding)
    if target is None:
        return Decision(Grade.REVIEW, None, f"{names} each ask for their own terms, and no licence satisfies both")
    against = [judgement.facts.id for judgement in judged if excludes(judgement.facts.id, target.id)]
    if against:
        return Decision(Grade.REVIEW, None, f"{against[0]} and {target.id} cannot be joined in one work")
    return Decision(grade, _as_published(target, judged, _why(target, judged)), _why(target, judged))


def choose_outgoing(judged: Sequence[Judgement], chosen: LicenseFacts) -> Decision:
    """Takes the user's own choice of a licence, where it honours what every work asks.

    Args:
        judged (`Sequence[Judgement]`):
            The works that bind the model.
        chosen (`LicenseFacts`):
            What the user wants to publish under.

    Returns:
        [`Decision`]: without an outgoing licence where some work lets nobody publish, or must be read first.

    Raises:
        UserError: where the choice grants more than a work does, or leaves out what one asks.
    """
    decided = decide_outgoing(judged)
    works = worst([judgement.publishing for judgement in judged])
    if works in (Grade.REVIEW, Grade.FORBIDDEN):
        return decided
    against = [judgement for judgement in judged if not _honours(judgement.facts, chosen)]
    if against:
        work, asks = against[0].link.work, against[0].facts.id
        instead = decided.outgoing.name or decided.outgoing.license if decided.outgoing else None
        raise UserError(
            f"--license {chosen.id} does not keep what {work} ({asks}) asks of what is made of it.",
            f"{instead or asks}, or a stricter licence that keeps to it",
            f"drop --license; or --license_override {work}=ID --license_evidence LINK_OR_FILE, where you hold a "
            "permission",
        )
    reason = f"you chose {chosen.id}, which keeps what the works ask"
    return Decision(works, _as_published(chosen, judged, reason), reason)


def _honours(facts: LicenseFacts, chosen: LicenseFacts) -> bool:
    """Returns whether a model under `chosen` keeps what a work under `facts` asks."""
    if facts.id == OWN or facts == chosen or may_become(facts.id, chosen.id):
        return True
    drops_names = facts.attribution == "yes" and facts.share_alike != "data" and chosen.attribution != "yes"
    drops_limit = facts.non_commercial and not chosen.non_commercial
    return not (facts.keeps_terms or drops_names or drops_limit or excludes(facts.id, chosen.id))


def _binding(judged: Sequence[Judgement]) -> list[LicenseFacts]:
    """Returns the licences that the published model cannot leave behind, each once."""
    rows = [judgement.facts for judgement in judged]
    return list(dict.fromkeys(facts for facts in rows if facts.keeps_terms or facts.non_commercial))


def _satisfies_all(target: LicenseFacts, binding: Sequence[LicenseFacts]) -> bool:
    """Returns whether a model under `target` honours all the others too."""
    return all(
        other == target
        or may_become(other.id, target.id)
        # A non-commercial licence without share-alike asks only that its limit is kept.
        or (other.non_commercial and not other.keeps_terms and target.non_commercial)
        for other in binding
    )


def _permissive(judged: Sequence[Judgement], grade: Grade) -> Decision:
    licensed = [judgement for judgement in judged if judgement.facts.id != OWN]
    if not licensed:
        reason = "everything is yours: choose a licence yourself, with --license ID"
        return Decision(Grade.REVIEW, None, reason)
    first = licensed[0]
    asking = [
        judgement
        for judgement in licensed
        # Terms of a database do not fit weights; what they ask of results is in NOTICE.
        if judgement.facts.attribution == "yes" and judgement.facts.share_alike != "data"
    ]
    # The tag of a dedication to the public domain would drop the names that another work asks to be kept.
    chosen = first if first in asking or not asking else asking[0]
    reason = "all is permissive: the base's licence stays, with the attributions of all"
    if chosen is not first:
        reason = f"all is permissive, but {chosen.link.work} asks for attribution and the base does not"
    return Decision(grade, _as_published(chosen.facts, judged, reason), reason)


def _why(target: LicenseFacts, judged: Sequence[Judgement]) -> str:
    works = ", ".join(judgement.link.work for judgement in judged if judgement.facts == target)
    if target.share_alike in ("same", "same+network", "weak"):
        return f"{works} asks that what is made of it stays under {target.id}"
    if target.keeps_terms:
        return f"the terms of {works} travel along with what is made of it"
    return f"{works} rules out commercial use, and so must what is made of it"


def _as_published(facts: LicenseFacts, judged: Sequence[Judgement], reason: str) -> OutgoingLicense:
    """Returns a licence as the Hub wants it: by its id, or as `other` with name and link."""
    if facts.hub == "yes":
        return OutgoingLicense(facts.id, None, None, reason)
    said = [
        statement
        for judgement in judged
        for statement in judgement.link.statements
        if statement.license == OTHER and statement.name and resolved(statement) == facts.id
    ]
    link = next((statement.link for statement in said if statement.link and "://" in statement.link), facts.source)
    return OutgoingLicense(OTHER, said[0].name if said else facts.id, link, reason)


def _joined(binding: Sequence[LicenseFacts]) -> OutgoingLicense:
    name = "-and-".join(facts.id for facts in binding)
    return OutgoingLicense(OTHER, name, "LICENSE", "each of these sets of terms travels along")
