"""What one work says about its licence: in its card, in its licence files, and in timm's registry.

Knows cards, file names and timm. Does not know how bad a licence is (`hf_transfer.publishing.license_judgement`), nor
which works make up a chain (`hf_transfer.publishing.license_chain`). Everything read from outside is cut to one short
line without control characters before it goes anywhere.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hf_transfer.publishing.license_table import OTHER, UNKNOWN, normalise, timm_twins
from hf_transfer.publishing.license_texts import is_recognisable, recognise
from hf_transfer.publishing.license_verdict import LicenseStatement

CARD = "README.md"
CONFIG = "config.json"
LARGEST_TEXT = 1_000_000
"""Bytes; what is larger is no licence text."""
_LICENSE_FILE = re.compile(r"(?:[\w.-]*[-_.])?(?:LICEN[CS]ES?|COPYING(?:\.LESSER)?)(?:[-_.][\w.-]*)?", re.IGNORECASE)
# What others' parts are under, as a list: it travels along, and says nothing about the work as a whole.
_NOTICE_FILE = re.compile(r"(?:NOTICES?|THIRD[-_]?PARTY[-_][\w-]+)(?:\.(?:txt|md))?", re.IGNORECASE)
_NO_TEXT = (".py", ".json", ".png", ".safetensors", ".yaml", ".yml", ".csv")
_CARD_HEADER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Work:
    """One work as it describes itself."""

    work: str
    """Hub id or path as it was given."""
    role: str
    """`model`, `base model` or `dataset`."""
    revision: str | None = None
    statements: tuple[LicenseStatement, ...] = ()
    bases: tuple[str, ...] = ()
    """Hub ids that its card names as `base_model`."""
    trained_on: tuple[str, ...] = ()
    """Data sets that its card names."""
    files: tuple[str, ...] = ()
    """Names of its licence and notice files."""
    problem: str | None = None
    """Why it could not be read, or not whole."""
    notes: tuple[str, ...] = field(default=())


def is_license_file(name: str) -> bool:
    """Returns whether a file at the root of a repository holds a licence, by its name."""
    return bool(_LICENSE_FILE.fullmatch(name)) and not name.lower().endswith(_NO_TEXT) and not is_notice_file(name)


def is_notice_file(name: str) -> bool:
    """Returns whether a file at the root of a repository is a NOTICE, which must travel along."""
    return bool(_NOTICE_FILE.fullmatch(name))


def describe(
    work: str,
    role: str,
    folder: Path | None,
    *,
    revision: str | None = None,
    card: Mapping[str, Any] | None = None,
    problem: str | None = None,
) -> Work:
    """Reads everything that a work says, from a folder that holds its small files.

    Args:
        work (`str`):
            Hub id or path as it was given.
        role (`str`):
            `model`, `base model` or `dataset`.
        folder (`Path`, *optional*):
            Where its card, licence files and `config.json` are, as far as it has them.
        revision (`str`, *optional*):
            The commit that the folder holds.
        card (`Mapping`, *optional*):
            The card's metadata, where the Hub gave them without the card.
        problem (`str`, *optional*):
            Why something could not be read.

    Returns:
        [`Work`]
    """
    place = f"{work}@{revision}" if revision else work
    notes: list[str] = []
    if folder is not None and (folder / CARD).is_file():
        try:
            card = read_card(folder / CARD)
        except ValueError as error:
            notes.append(f"The card of {work} cannot be read: {one_line(error)}")
    card = card or {}
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder is not None else []
    files = [name for name in names if is_license_file(name) or is_notice_file(name)]
    statements = [*_from_card(card, f"{place} {CARD}"), *_from_files(folder, files, place, card)]
    if role != "dataset":
        statements += timm_statements(work, folder)
    return Work(
        work=work,
        role=role,
        revision=revision,
        statements=tuple(statements),
        bases=tuple(one_line(base) for base in texts(card.get("base_model"))),
        trained_on=tuple(one_line(name) for name in texts(card.get("datasets"))) if role != "dataset" else (),
        files=tuple(files),
        problem=problem,
        notes=tuple(notes),
    )


def read_card(path: Path) -> dict[str, Any]:
    """Returns the metadata at the top of a card; empty where it has none.

    Raises:
        ValueError: where they are no YAML, or no mapping.
    """
    header = _CARD_HEADER.match(path.read_text(encoding="utf-8", errors="replace"))
    if header is None:
        return {}
    try:
        card = yaml.safe_load(header[1])
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("its metadata are no valid YAML") from error
    if card is None:
        return {}
    if not isinstance(card, dict):
        raise ValueError("its metadata are no mapping")
    return card


def timm_statements(work: str, folder: Path | None = None) -> list[LicenseStatement]:
    """Returns what timm's registry, which needs no network, says about the same weights.

    Covered are the Hub ids that timm itself loads from, folders and repositories whose `config.json` names one of
    timm's pretrained tags, and the transformers ids of `license_twins.csv`. Any other id has no counterpart in timm
    that is documented, and is not guessed by likeness of names.
    """
    names = {timm_twins().get(work), _timm_name_in(folder), *_timm_names_by_hub_id().get(work, ())} - {None}
    return [_timm_statement(str(name), work) for name in sorted(map(str, names))]


def texts(value: Any) -> list[str]:
    """Returns a text or a list of texts of a card as a list; whatever else is in it is left out."""
    values = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str) and text.strip()]


def one_line(value: object, longest: int = 300) -> str:
    """Returns a text from outside as one line of printable characters."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}\u2026"


def _from_card(card: Mapping[str, Any], evidence: str) -> Iterable[LicenseStatement]:
    name = next(iter(texts(card.get("license_name"))), None)
    link = next(iter(texts(card.get("license_link"))), None)
    for text in texts(card.get("license")):
        known = normalise(text)
        if known is None or known == OTHER:
            # An id that the table lacks is kept as a name, so that the reader sees what was said.
            given = name if known == OTHER else text
            yield LicenseStatement(
                "card", OTHER, evidence, given and one_line(given), one_line(link) if link else None
            )
        else:
            yield LicenseStatement("card", known, evidence)


def _from_files(
    folder: Path | None, names: Iterable[str], place: str, card: Mapping[str, Any]
) -> Iterable[LicenseStatement]:
    licenses = [name for name in names if is_license_file(name)]
    stated = [normalise(text) for text in texts(card.get("license"))]
    for name in licenses if folder is not None else ():
        path = folder / name  # type: ignore[operator]
        found = recognise(path.read_text(encoding="utf-8", errors="replace")) if _is_text(path) else ()
        for license_id in found:
            yield LicenseStatement("license file", license_id, f"{place} {name}")
        # An unknown text beside a licence whose text would have been recognised says something else.
        if not found and (not stated or any(known and is_recognisable(known) for known in stated)):
            yield LicenseStatement("license file", OTHER, f"{place} {name}", f"text of {name}, not recognised")


def _is_text(path: Path) -> bool:
    return path.stat().st_size <= LARGEST_TEXT


def _timm_statement(name: str, work: str) -> LicenseStatement:
    import timm

    config = timm.get_pretrained_cfg(name)
    evidence = f"timm {timm.__version__}, {name}"
    if config is None or config.license is None:
        return LicenseStatement("timm registry", None, evidence)
    known = normalise(config.license)
    if known is None:
        return LicenseStatement("timm registry", OTHER, evidence, one_line(config.license), config.origin_url or None)
    return LicenseStatement("timm registry", None if known == UNKNOWN else known, evidence)


def _timm_name_in(folder: Path | None) -> str | None:
    """Returns timm's name of the weights that a `config.json` says it holds or was made from."""
    if folder is None or not (folder / CONFIG).is_file():
        return None
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError:
        return None  # a damaged configuration is told by whoever loads the model
    pretrained = config.get("pretrained_cfg") if isinstance(config, dict) else None
    if not isinstance(pretrained, dict) or not pretrained.get("tag"):
        return None
    name = f"{config.get('architecture')}.{pretrained['tag']}"
    return name if name in _timm_names() else None


@cache
def _timm_names() -> frozenset[str]:
    import timm

    return frozenset(timm.list_pretrained())


@cache
def _timm_names_by_hub_id() -> dict[str, tuple[str, ...]]:
    import timm

    names: dict[str, tuple[str, ...]] = {}
    for name in sorted(_timm_names()):
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.hf_hub_id:
            names[config.hf_hub_id] = (*names.get(config.hf_hub_id, ()), name)
    return names
