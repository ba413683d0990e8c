"""The user's own word about a work's licence, with the evidence for it.

Knows the options `--license_override WORK=ID` and `--license_evidence LINK_OR_FILE`, and what counts as evidence.
Does not judge.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hf_transfer.errors import UserError, nearest
from hf_transfer.publishing.license_sources import one_line
from hf_transfer.publishing.license_table import OWN, LicenseFacts, facts_of, license_table, normalise
from hf_transfer.publishing.license_verdict import Override


def read_overrides(overrides: Sequence[str], evidence: Sequence[str]) -> tuple[Override, ...]:
    """Reads overrides as they were typed; the first evidence belongs to the first override, and so on.

    Args:
        overrides (`Sequence[str]`):
            Such as `owner/model=apache-2.0`; `own` stands for a written permission or rights of one's own.
        evidence (`Sequence[str]`):
            A link or a file for each.

    Raises:
        UserError: for a licence that is not known, or an override without evidence.
    """
    if len(overrides) != len(evidence):
        raise UserError(
            f"{len(overrides)} --license_override and {len(evidence)} --license_evidence were given.",
            "one evidence for each override: a link, or a file such as the letter that grants the licence",
            "--license_override WORK=ID --license_evidence LINK_OR_FILE",
        )
    today = datetime.now(UTC).date().isoformat()
    found = []
    for text, proof in zip(overrides, evidence, strict=True):
        work, sign, given = text.rpartition("=")
        if not sign or not work:
            raise UserError(f"--license_override {text}", "WORK=ID", "--license_override owner/model=apache-2.0")
        found.append(Override(work, read_license(given, "--license_override"), read_evidence(proof), today))
    repeated = {override.work for override in found if [other.work for other in found].count(override.work) > 1}
    if repeated:
        raise UserError(f"--license_override names {sorted(repeated)[0]!r} twice.", "one licence for each work")
    return tuple(found)


def read_license(text: str, flag: str) -> str:
    """Returns the id that the user means.

    Raises:
        UserError: where the table lacks it, or it says nothing that could be judged.
    """
    found = normalise(text)
    if found is None or not facts_of(found).is_known:
        known = [name for name, facts in license_table().items() if facts.is_known]
        close = nearest(text.lower(), known)
        raise UserError(
            f"{flag} {one_line(text)}: {'nothing can be concluded from it' if found else 'no licence that is known'}.",
            "an id that the Hub lists (huggingface.co/docs/hub/repositories-licenses), or `own` where you hold the "
            "rights or a written permission",
            f"{flag} {close}" if close else None,
        )
    return found


def read_choice(text: str) -> LicenseFacts:
    """Returns the licence that the user wants to publish under.

    Raises:
        UserError: where it is none, or none that can be named on the Hub.
    """
    found = read_license(text, "--license")
    if found == OWN:
        raise UserError("--license own names no licence.", "what others may do with the model", "--license apache-2.0")
    return facts_of(found)


def read_evidence(text: str) -> str:
    """Returns a link as it is, and a file as its name and SHA-256.

    Raises:
        UserError: where it is neither.
    """
    if text.startswith(("https://", "http://")) and len(text.split("//", 1)[1]) > 3:
        return one_line(text)
    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"--license_evidence {one_line(text)} is neither a link nor a file.", "https://... or a file")
    with path.open("rb") as file:
        return f"{one_line(path.name)} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def match_overrides(overrides: Sequence[Override], works: Sequence[str]) -> dict[str, Override]:
    """Returns the override of each work that has one.

    Raises:
        UserError: where an override names no work of the chain.
    """
    for override in overrides:
        if override.work not in works:
            raise UserError(
                f"--license_override names {override.work!r}, which is not in the chain.",
                ", ".join(works),
                f"--license_override {nearest(override.work, list(works)) or works[0]}={override.license}",
            )
    return {override.work: override for override in overrides}
