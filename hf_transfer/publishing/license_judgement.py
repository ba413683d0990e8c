"""How bad a licence is for a use, and which of several statements counts: the strictest.

Knows the table (`hf_transfer.publishing.license_table`). Does not read anything, and does not decide under what a
model may be published (`hf_transfer.publishing.outgoing_license`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_transfer.publishing.license_sources import Work
from hf_transfer.publishing.license_table import OTHER, OWN, UNKNOWN, LicenseFacts, facts_of, id_from_link, normalise
from hf_transfer.publishing.license_verdict import Grade, LicenseLink, LicenseStatement, Override, worst

RESEARCH, COMMERCIAL = "research", "commercial"
_UNREAD = (OTHER, UNKNOWN)


def grade_for_use(facts: LicenseFacts, use: str) -> Grade:
    """Returns how bad a licence is for fine-tuning a work, or on it, and using the result.

    Args:
        facts (`LicenseFacts`):
            A row of the table.
        use (`str`):
            `research` or `commercial`.
    """
    if use == COMMERCIAL and facts.non_commercial:
        return Grade.FORBIDDEN
    if not facts.is_known or facts.condition == "text" or facts.derivatives not in ("yes", "private"):
        return Grade.REVIEW
    if use == COMMERCIAL and facts.condition == "user":
        return Grade.REVIEW
    return Grade.OBLIGATIONS if _asks_for_something(facts) else Grade.ALLOWED


def grade_for_publishing(facts: LicenseFacts) -> Grade:
    """Returns how bad a licence is for passing on what was made of the work, by itself and to whomever."""
    if facts.derivatives in ("no", "private"):
        return Grade.FORBIDDEN
    if not facts.is_known or facts.condition == "text" or facts.derivatives != "yes":
        return Grade.REVIEW
    return Grade.OBLIGATIONS if _asks_for_something(facts) else Grade.ALLOWED


@dataclass(frozen=True)
class Judgement:
    """One work, judged for a use and for publishing."""

    link: LicenseLink
    publishing: Grade
    """Of everything that counts, not of the strictest alone."""

    @property
    def facts(self) -> LicenseFacts:
        """The row of the licence that counts."""
        return facts_of(self.link.license)


def judge(work: Work, use: str, override: Override | None = None) -> Judgement:
    """Judges one work by everything that was said about it.

    Args:
        work (`Work`):
            The work as it describes itself.
        use (`str`):
            `research` or `commercial`.
        override (`Override`, *optional*):
            The user's word, which counts in place of all other statements; they are kept and shown.

    Returns:
        [`Judgement`]
    """
    conflict = len({frozenset(ids) for source in _sources(work) if (ids := _ids_of(work, source))}) > 1
    counted = [override.license] if override else counted_ids(work)
    # Of a work whose own words could not be read, the good word of a registry is no permission.
    unread = work.problem is not None and not _speaks_for_itself(work) and override is None
    rows = [facts_of(license_id) for license_id in (*counted, *((None,) if unread or not counted else ()))]
    own_word = (LicenseStatement("user", override.license, override.evidence),) if override else ()
    link = LicenseLink(
        work=work.work,
        role=work.role,
        revision=work.revision,
        statements=(*work.statements, *own_word),
        license=strictest(counted, use),
        conflict=conflict,
        grade=worst([grade_for_use(facts, use) for facts in rows]),
        reason=_reason(work, use, counted, conflict, override),
        files=work.files,
        problem=work.problem,
    )
    return Judgement(link, worst([grade_for_publishing(facts) for facts in rows]))


def strictest(license_ids: Sequence[str], use: str) -> str | None:
    """Returns the licence that grants least: for the use first, then for publishing, then for commerce."""

    def severity(license_id: str) -> tuple[int, ...]:
        facts, order = facts_of(license_id), list(Grade)
        grades = (grade_for_use(facts, use), grade_for_publishing(facts), grade_for_use(facts, COMMERCIAL))
        return (*(order.index(grade) for grade in grades), facts.keeps_terms, facts.use_limits == "yes")

    return max(license_ids, key=severity, default=None)


def resolved(statement: LicenseStatement) -> str | None:
    """Returns the id that a statement means: `other` with a known name or link is that licence."""
    if statement.license != OTHER:
        return statement.license
    named = normalise(statement.name) if statement.name else None
    linked = id_from_link(statement.link) if statement.link else None
    return next((license_id for license_id in (named, linked) if license_id and license_id not in _UNREAD), OTHER)


def counted_ids(work: Work) -> list[str]:
    """Returns the licences that count of all that is said about a work."""
    ids = [(said, resolved(said)) for said in work.statements]
    from_files = {license_id for said, license_id in ids if said.source == "license file"} - {OTHER}
    # `other` in a card points to the text; where the text lies beside the card and is recognised, that is the answer.
    known = [
        license_id
        for said, license_id in ids
        if license_id
        and license_id != UNKNOWN
        and not (license_id == OTHER and said.source == "card" and from_files and _points_into(said, work))
    ]
    return list(dict.fromkeys(known))


def _points_into(statement: LicenseStatement, work: Work) -> bool:
    """Returns whether `license_link` names a file of the repository, or nothing."""
    link = statement.link
    return link is None or link.rsplit("/", 1)[-1] in work.files and ("://" not in link or work.work in link)


def _asks_for_something(facts: LicenseFacts) -> bool:
    return (
        facts.attribution == "yes"
        or facts.ship_licence in ("yes", "link")
        or facts.share_alike != "no"
        or facts.use_limits == "yes"
    )


def _speaks_for_itself(work: Work) -> bool:
    return any(said.source not in ("timm registry", "user") for said in work.statements)


def _sources(work: Work) -> list[str]:
    return list(dict.fromkeys(said.source for said in work.statements))


def _ids_of(work: Work, source: str) -> set[str]:
    ids = {resolved(said) for said in work.statements if said.source == source}
    return {license_id for license_id in ids if license_id and license_id not in _UNREAD}


def _reason(work: Work, use: str, counted: Sequence[str], conflict: bool, override: Override | None) -> str:
    if override is not None:
        return f"{override.license}, by your word ({override.evidence}, {override.date})"
    license_id = strictest(counted, use)
    if license_id is None:
        return work.problem or "it says nothing about its licence"
    facts = facts_of(license_id)
    words = [_words(facts, use, _name(work, license_id))]
    if conflict:
        said = ", ".join(
            f"{source} {'/'.join(sorted(ids))}" for source in _sources(work) if (ids := _ids_of(work, source))
        )
        words.insert(0, f"its sources disagree ({said}), the strictest counts")
    elif len(counted) > 1:
        words.insert(0, f"several licences are named ({', '.join(counted)}), the strictest counts")
    return "; ".join([*words, *([work.problem] if work.problem else [])])


def _name(work: Work, license_id: str) -> str:
    names = [said.name for said in work.statements if said.name and resolved(said) == license_id]
    return f"{license_id} ({names[0]})" if names and license_id == OTHER else license_id


def _words(facts: LicenseFacts, use: str, name: str) -> str:
    if facts.id == OWN:
        return "you hold the rights, as you state"
    if not facts.is_known:
        return f"{name} says nothing that can be checked: its text must be read"
    if use == COMMERCIAL and facts.non_commercial:
        return f"{name} rules out commercial use"
    if facts.condition == "text":
        return f"{name}: its text must be read ({facts.notes})"
    if facts.derivatives == "no":
        return f"{name} grants no right to adapt; whether weights are an adaptation must be decided by a person"
    if facts.condition == "user" and use == COMMERCIAL:
        return f"{name} depends on who you are ({facts.notes})"
    limits = ", for non-commercial use only" if facts.non_commercial else ""
    return f"{name}{limits}" if _asks_for_something(facts) else f"{name} asks for nothing"
