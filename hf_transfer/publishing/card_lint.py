"""A card held against what it must be, without a network: metadata, numbers, links, pictures, and nothing let through.

Knows what the Hub asks of metadata and what a page of ours may hold. Works on the page as text, not on what it was
rendered from, so that it would see a mistake of the template or of the escaping.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml
from huggingface_hub import ModelCard

from hf_transfer.errors import UserError
from hf_transfer.publishing.license_table import OTHER, license_table
from hf_transfer.publishing.local_places import without_local_places

HEADINGS = {
    1: (),
    2: ("How to use", "Labels", "Results", "Calibration", "Curves", "Limits", "Data", "Preprocessing and augmentation",
        "Reproduce", "Licence", "Provenance"),
    3: ("By class", "Most frequent confusions"),
}  # fmt: skip
_BLOCK = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_FENCED = re.compile(r"^(`{3,})[^\n`]*\n.*?^\1$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<![\\`])(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_LINK = re.compile(r"(?<!\\)(!?)\[((?:[^\[\]\\]|\\.)*)\]\(([^)]*)\)")
_HTML = re.compile(r"<(?=[A-Za-z/!?])")
_PIPE = re.compile(r"(?<!\\)(?:\\\\)*\|")


def lint_card(text: str, folder: Path, report: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a card, a sentence each; nothing where all is well.

    Args:
        text (`str`):
            The card.
        folder (`Path`):
            The run's folder, for the files that the card links and for `metrics.json`.
        report (`Mapping`):
            `run.json`.
    """
    fields, problems = _metadata(text)
    if fields is None:
        return problems
    prose = _INLINE.sub("", _FENCED.sub("", _BLOCK.sub("", text)))
    return [
        *problems,
        *_license(fields, folder, report, complete=True),
        *(() if problems else _numbers(fields, folder / report["outputs"]["metrics"], complete=True)),
        *_places(text),
        *_links(prose, folder),
        *_characters(text),
        *_markup(prose),
    ]


def untrue_statements(text: str, folder: Path, report: Mapping[str, Any]) -> list[str]:
    """Returns what must keep a card from being published, whoever wrote it, a sentence each.

    That is: metadata that cannot be read, a licence that is none or that nobody decided, numbers that nobody measured,
    and what tells of this computer. A card may say less than the run knows. Takes what `lint_card` takes.
    """
    fields, problems = _metadata(text)
    if fields is None:
        return problems
    return [
        *problems,
        *_license(fields, folder, report, complete=False),
        *(() if problems else _numbers(fields, folder / report["outputs"]["metrics"], complete=False)),
        *_places(text),
    ]


def _metadata(text: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Returns the metadata, `None` where there are none, and what is wrong with them as such."""
    match = _BLOCK.match(text)
    if match is None:
        return None, ["The card does not begin with a block of metadata between two lines of dashes."]
    try:
        fields = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return None, [f"The metadata is no YAML: {str(error).splitlines()[0]}"]
    if not isinstance(fields, dict):
        return None, ["The metadata is no mapping."]
    return fields, list(_round_trip(text, fields))


def _round_trip(text: str, fields: dict[str, Any]) -> Iterator[str]:
    """Reads the metadata with huggingface_hub, as the Hub's other readers do, and writes it again."""
    try:
        card = ModelCard(text, ignore_metadata_errors=False)
    except (ValueError, KeyError, TypeError) as error:
        yield f"huggingface_hub cannot read the metadata: {error}"
        return
    again = yaml.safe_load(card.data.to_yaml())
    if again != fields:
        lost = sorted(key for key in fields.keys() | again.keys() if fields.get(key) != again.get(key))
        yield f"huggingface_hub reads other metadata than were written: {', '.join(lost)}."


def _license(fields: dict[str, Any], folder: Path, report: Mapping[str, Any], complete: bool) -> Iterator[str]:
    license_id = fields.get("license")
    outgoing = (report.get("license") or {}).get("outgoing") or {}
    decided = outgoing.get("license")
    if license_id != decided and (complete or license_id is not None):
        yield f"The licence is {license_id}, and what the run decided is {decided}."
    if license_id is None:
        if "license_name" in fields or "license_link" in fields:
            yield "The licence has a name or a link, but no id."
        return
    row = license_table().get(str(license_id))
    if license_id == OTHER:
        missing = [key for key in ("license_name", "license_link") if not fields.get(key)]
        if missing:
            yield f"The licence is `other` without {' and '.join(missing)}."
    elif row is None or row.hub != "yes":
        yield f"The Hub has no licence {license_id!r}."
    link = fields.get("license_link")
    coming = outgoing.get("files") or ()
    if link and "://" not in link and link not in coming and not (folder / link).is_file():
        yield f"The licence links {link!r}, which is not there."


def _numbers(fields: dict[str, Any], path: Path, complete: bool) -> Iterator[str]:
    """Compares `model-index` with `metrics.json`: what it says, and whether it says all (`complete`)."""
    found: dict[str, dict[str, float]] = {}
    for model in fields.get("model-index", ()):
        for result in model["results"]:
            split = found.setdefault(result["dataset"]["split"], {})
            split.update({metric["type"]: metric["value"] for metric in result["metrics"]})
    for part, values in found.items():
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                yield f"{part} {key} is no finite number: {value!r}"
    if not path.is_file():
        yield f"{path.name} is missing, so no number can be compared."
        return
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        yield f"{path.name} is damaged: {error}"
        return
    for part in sorted(found.keys() | (measured.keys() if complete else set())):
        shown, true = found.get(part, {}), measured.get(part, {})
        for key in sorted(shown.keys() | (true.keys() if complete else set())):
            if shown.get(key) != true.get(key):
                yield f"{part} {key} is {shown.get(key)} in the card and {true.get(key)} in {path.name}."


def _links(prose: str, folder: Path) -> Iterator[str]:
    for mark, text, target in _LINK.findall(prose):
        address = unquote(target.split("#")[0])
        if mark and not text.strip():
            yield f"The picture {target} has no text for those who cannot see it."
        if re.match(r"[a-z][a-z+.-]*:", address, re.IGNORECASE):
            if not address.startswith("https://"):
                yield f"The card links {target}."
        elif address and (".." in Path(address).parts or not (folder / address).is_file()):
            yield f"The card links {target}, which is not there."


def _places(text: str) -> Iterator[str]:
    for line in text.splitlines():
        cleaned = without_local_places({"line": line})["line"]
        if cleaned != line:
            yield f"A folder of this computer or a token is in the line {cleaned!r}."


def _characters(text: str) -> Iterator[str]:
    allowed = "\n\u200c\u200d"
    found = {letter for letter in text if letter not in allowed and unicodedata.category(letter).startswith("C")}
    if found:
        yield f"The card holds characters that cannot be seen: {', '.join(f'U+{ord(x):04X}' for x in sorted(found))}."


def _markup(prose: str) -> Iterator[str]:
    """Finds HTML, headings that are none of ours, and tables whose rows differ in their number of cells."""
    width = None
    titles = 0
    for line in prose.splitlines():
        if _HTML.search(line):
            yield f"The card holds HTML: {line!r}"
        heading = re.match(r"(#{1,6}) (.*)", line)
        if heading and len(heading[1]) == 1:
            titles += 1
        elif heading and heading[2] not in HEADINGS.get(len(heading[1]), ()):
            yield f"The card has a heading that is none of ours: {line!r}"
        cells = len(_PIPE.findall(line)) if line.startswith("|") else None
        if cells is not None and width is not None and cells != width:
            yield f"A row of a table has {cells - 1} cells, its head {width - 1}: {line!r}"
        width = None if cells is None else width or cells
        if re.match(r"(---+|===+|\*\*\*+)\s*$", line):
            yield f"A line of the card is a rule or an underline: {line!r}"
    if titles != 1:
        yield f"The card has {titles} titles."


def check_card(folder: Path, report: Mapping[str, Any], name: str) -> list[str]:
    """Returns what is wrong with the card in a run's folder.

    Raises:
        UserError: where there is none, or it is no text.
    """
    path = folder / name
    try:
        return lint_card(path.read_text(encoding="utf-8"), folder, report)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}", hint=f"hf-transfer card {folder}") from error
