"""The verdict on the licences of a run, as `run.json` holds it and the card and the push read it.

Knows the shape of a verdict and how bad each grade is. Does not know how a licence is found or judged. It is a check
of what works say about themselves, not legal advice.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Grade(StrEnum):
    """From best to worst; a chain is as good as its worst link."""

    ALLOWED = "allowed"
    OBLIGATIONS = "allowed with obligations"
    REVIEW = "needs review"
    FORBIDDEN = "forbidden"

    @property
    def exit_code(self) -> int:
        """What `hf-transfer license` exits with: 0 allowed, 3 needs review, 4 forbidden."""
        return {Grade.REVIEW: 3, Grade.FORBIDDEN: 4}.get(self, 0)


def worst(grades: "list[Grade]") -> Grade:
    """Returns the worst of the grades; allowed where there are none."""
    order = list(Grade)
    return max(grades, key=order.index, default=Grade.ALLOWED)


@dataclass(frozen=True)
class LicenseStatement:
    """What one source says about one work."""

    source: str
    """Which kind: `card`, `license file`, `timm registry`, `package` (data that come with it), `run` or `user`."""
    license: str | None
    """The Hub's id in lower case, such as `apache-2.0` or `other`; `None` where the source says nothing."""
    evidence: str
    """Where it was read: repository, commit and file, or a link."""
    name: str | None = None
    """`license_name`, for `other`."""
    link: str | None = None
    """`license_link`, for `other`."""


@dataclass(frozen=True)
class LicenseLink:
    """One work in the chain: the checkpoint, one of its bases, or the data set."""

    work: str
    """Hub id or path as the user gave it."""
    role: str
    """`model`, `base model` or `dataset`."""
    revision: str | None
    statements: tuple[LicenseStatement, ...]
    license: str | None
    """The licence that counts, as `licenses.csv` names it: the strictest of the statements; `None` where nothing is
    known. `own` where the user holds the rights."""
    conflict: bool
    """Whether sources disagree."""
    grade: Grade
    """For the declared use."""
    reason: str
    files: tuple[str, ...] = ()
    """Names of the work's own licence and notice files."""
    problem: str | None = None
    """Why it could not be read, or not whole."""


@dataclass(frozen=True)
class Obligation:
    """What a licence asks of whoever passes the model on, and how that is met."""

    work: str
    duty: str
    how_met: str


@dataclass(frozen=True)
class Override:
    """The user's own word about a work whose licence is unknown or disputed, with evidence."""

    work: str
    license: str
    evidence: str
    """A link, or path and SHA-256 of a file."""
    date: str


@dataclass(frozen=True)
class OutgoingLicense:
    """What the published model is licensed under."""

    license: str
    """The Hub's id, or `other`."""
    name: str | None
    """`license_name`, for `other`."""
    link: str | None
    """`license_link`: a link, or the name of a file that is published along."""
    reason: str
    files: tuple[str, ...] = ()
    """Texts and notices that must travel along, as file names in the published folder."""


@dataclass(frozen=True)
class LicenseVerdict:
    """The verdict on a chain of works, for one declared use and for publishing."""

    use: str | None
    """`research`, `commercial`, or `None` where the user declared none."""
    grade: Grade
    """For the declared use; for research where none was declared."""
    publishing: Grade
    links: tuple[LicenseLink, ...]
    obligations: tuple[Obligation, ...]
    overrides: tuple[Override, ...]
    outgoing: OutgoingLicense | None
    """`None` where the model may not be published, or nobody decided under what."""
    notes: tuple[str, ...] = ()
    data_report_only: bool = False
    """Whether the licences of data are shown only, and bind neither use nor publishing."""

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> "LicenseVerdict":
        """Reads a verdict back from `run.json`."""
        outgoing = facts["outgoing"]
        return cls(
            use=facts["use"],
            grade=Grade(facts["grade"]),
            publishing=Grade(facts["publishing"]),
            links=tuple(_link(link) for link in facts["links"]),
            obligations=tuple(Obligation(**obligation) for obligation in facts["obligations"]),
            overrides=tuple(Override(**override) for override in facts["overrides"]),
            outgoing=outgoing and OutgoingLicense(**outgoing | {"files": tuple(outgoing["files"])}),
            notes=tuple(facts["notes"]),
            data_report_only=facts.get("data_report_only", False),
        )


def _link(facts: dict[str, Any]) -> LicenseLink:
    statements = tuple(LicenseStatement(**statement) for statement in facts["statements"])
    plain = {"statements": statements, "grade": Grade(facts["grade"]), "files": tuple(facts.get("files", ()))}
    return LicenseLink(**facts | plain)
