"""The licence texts and notices that travel along with a published model.

Knows which files a folder must hold (`plan_files`, from the verdict alone) and how they are written
(`write_license_files`). Texts that a work brought are copied as they are; texts of common licences are package data
(`texts/`), for works that name a licence without bringing it. Does not decide what is owed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from hf_transfer.publishing.license_places import fetch_file
from hf_transfer.publishing.license_sources import one_line
from hf_transfer.publishing.license_table import OTHER, OWN, facts_of
from hf_transfer.publishing.license_verdict import LicenseLink, LicenseVerdict, OutgoingLicense

LICENSE, NOTICE = "LICENSE", "NOTICE"
FOLDER = "licenses"


@dataclass(frozen=True)
class PlannedFile:
    """One file of the published folder."""

    name: str
    """Relative to the folder."""
    link: LicenseLink | None = None
    """The work that it is copied from; else it is a packaged text, or written anew."""
    source: str | None = None
    """Name of the work's file, or id of the packaged text."""


def plan_files(links: Sequence[LicenseLink], outgoing: OutgoingLicense) -> tuple[PlannedFile, ...]:
    """Lists the files that a published model needs beside its weights.

    Args:
        links (`Sequence[LicenseLink]`):
            The works that bind the model.
        outgoing (`OutgoingLicense`):
            Under what it is published.

    Returns:
        `tuple[PlannedFile, ...]`: `LICENSE` where its text is at hand or can be written, `NOTICE`, and below
        `licenses/` the works' own files and the texts that they owe.
    """
    slugs = _slugs(links)
    copied = [
        PlannedFile(f"{FOLDER}/{slugs[number]}/{name}", link, name)
        for number, link in enumerate(links)
        for name in link.files
    ]
    owed = {
        facts.id
        for link in links
        if (facts := facts_of(link.license)).ship_licence == "yes"
        and not _brings_text(link)
        and has_packaged_text(facts.id)
    }
    main = _main_license(links, outgoing)
    owed -= {file.source for file in main if file.link is None}
    packaged = [PlannedFile(f"{FOLDER}/{name}.txt", source=name) for name in sorted(owed)]
    return (*main, PlannedFile(NOTICE), *copied, *packaged)


def write_license_files(verdict: LicenseVerdict, folder: Path) -> tuple[str, ...]:
    """Writes the licence texts and notices of a verdict into the folder of a published model.

    Args:
        verdict (`LicenseVerdict`):
            With an outgoing licence.
        folder (`Path`):
            What will be published; must exist.

    Returns:
        `tuple[str, ...]`: the names of the files, those of `verdict.outgoing.files`.

    Raises:
        UserError: where a text cannot be had any more.
        ValueError: where the verdict has no outgoing licence.
    """
    if verdict.outgoing is None:
        raise ValueError("there is nothing to write for a model that may not be published")
    links = binding_links(verdict)
    planned = plan_files(links, verdict.outgoing)
    for file in planned:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_content(file, links, verdict.outgoing))
    return tuple(file.name for file in planned)


def binding_links(verdict: LicenseVerdict) -> tuple[LicenseLink, ...]:
    """Returns the works that bind the model: all, or those that are not data where data are only reported."""
    return tuple(link for link in verdict.links if link.role != "dataset" or not verdict.data_report_only)


def has_packaged_text(license_id: str) -> bool:
    """Returns whether the text of a licence comes with this package."""
    return _packaged(license_id).is_file()


def _main_license(links: Sequence[LicenseLink], outgoing: OutgoingLicense) -> tuple[PlannedFile, ...]:
    """Plans `LICENSE`, unless its text is neither with a work nor with this package."""
    license_id = outgoing.name if outgoing.license == OTHER else outgoing.license
    if outgoing.link == LICENSE:
        return (PlannedFile(LICENSE),)
    for link in links:
        text = _file_with_text(link, license_id)
        if text is not None:
            return (PlannedFile(LICENSE, link, text),)
    if license_id and has_packaged_text(license_id):
        return (PlannedFile(LICENSE, source=license_id),)
    return (PlannedFile(LICENSE),) if facts_of(license_id).ship_licence in ("link", "no") else ()


def _file_with_text(link: LicenseLink, license_id: str | None) -> str | None:
    """Returns the work's file that holds the text of this licence and of no other."""
    found: dict[str, set[str | None]] = {}
    for said in link.statements:
        if said.source == "license file":
            found.setdefault(said.evidence.rsplit(" ", 1)[-1], set()).add(said.license)
    return next((name for name, ids in found.items() if ids == {license_id} and name in link.files), None)


def _brings_text(link: LicenseLink) -> bool:
    return any(said.source == "license file" for said in link.statements)


def _slugs(links: Sequence[LicenseLink]) -> list[str]:
    """Returns a folder name for each work that tells nothing about paths of this machine."""
    slugs: list[str] = []
    for link in links:
        is_path = link.revision is None
        name = Path(link.work).expanduser().name if is_path else link.work.replace("/", "--")
        slug = re.sub(r"[^\w.-]+", "-", name).strip(".-") or link.role.replace(" ", "-")
        slugs.append(slug if slug not in slugs else f"{slug}-{len(slugs)}")
    return slugs


def _content(file: PlannedFile, links: Sequence[LicenseLink], outgoing: OutgoingLicense) -> bytes:
    if file.link is not None and file.source is not None:
        return fetch_file(file.link.work, file.link.role, file.link.revision, file.source).read_bytes()
    if file.source is not None:
        return _packaged(file.source).read_bytes()
    text = _notice(links) if file.name == NOTICE else _license_by_link(links, outgoing)
    return text.encode()


def _license_by_link(links: Sequence[LicenseLink], outgoing: OutgoingLicense) -> str:
    """Writes a `LICENSE` that names the terms and where their texts are."""
    ids = [link.license for link in links] if outgoing.link == LICENSE else [outgoing.name or outgoing.license]
    rows = [facts_of(license_id) for license_id in dict.fromkeys(ids) if license_id != OWN]
    lines = ["This model is licensed under all of these terms:" if len(rows) > 1 else "This model is licensed under"]
    lines += [f"  {facts.spdx or facts.id}: {facts.source}" for facts in rows]
    if outgoing.link == LICENSE:
        lines += ["", "Texts that its sources brought are in the folder `licenses`."]
    return "\n".join(lines) + "\n"


def _notice(links: Sequence[LicenseLink]) -> str:
    lines = ["This model was made by fine-tuning with hf_transfer. Its weights differ from those named below.", ""]
    for link, slug in zip(links, _slugs(links), strict=True):
        facts = facts_of(link.license)
        is_hub = link.revision is not None
        name = f"{one_line(link.work)}, commit {link.revision}" if is_hub else slug
        terms = "rights held by the publisher" if facts.id == OWN else f"{facts.spdx or facts.id}, {facts.source}"
        lines.append(f"{link.role}: {name}")
        lines.append(f"  licence: {terms}")
        lines += [f"  file: {FOLDER}/{slug}/{one_line(file)}" for file in link.files]
    return "\n".join(lines) + "\n"


def _packaged(license_id: str) -> Path:
    return Path(str(resources.files("hf_transfer.publishing") / "texts" / f"{license_id}.txt"))
