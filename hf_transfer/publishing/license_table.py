"""What is known about each licence, as a table: `licenses.csv`, with a source for every row.

Knows the 83 ids that the Hub has (August 2026), further versions of Creative Commons licences, the named licences of
timm's registry whose text was read, and which licences may become or exclude which others
(`license_compatibility.csv`). Does not know any work, and does not judge: unknown stays unknown.

A source is where the text stands. Rows whose notes say `text not read` rest on name and tag, and are held strict.

Columns of `licenses.csv`:
    commercial: `yes`, `no`, `conditional` or `unknown`
    condition: on what a conditional licence depends: `use` (keep to its use restrictions), `user` (who you are: size,
        seat, revenue), `text` (it must be read)
    derivatives: `yes`, `private` (may be made, not shared), `no`, `unknown`
    share_alike: `no`, `same`, `same+network`, `weak`, `restrictions` (use restrictions travel along), `data` (binds
        copies of the data, not what is computed from them), `unknown`
    ship_licence: whether the text must travel along: `yes`, `no`, `link` (a link will do), `unknown`
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

OWN = "own"
"""Not a licence: the user holds the rights, or a written permission."""
UNKNOWN = "unknown"
OTHER = "other"

_ALIASES = {
    "apache": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache2.0": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "apache-license-version-2.0": "apache-2.0",
    "mit-license": "mit",
    "cc0": "cc0-1.0",
    "public-domain-cc0": "cc0-1.0",
    "bsd-new": "bsd-3-clause",
    "bsd-simplified": "bsd-2-clause",
    "openrail-m": "openrail",
    "creativeml-openrail++-m": "openrail++",
    "nvidia-open-model-license-agreement": "nvidia-open-model-license",
}
_LINKS = (
    (r"creativecommons\.org/licenses/(by[a-z-]*)/(\d\.\d)", "cc-{0}-{1}"),
    (r"creativecommons\.org/publicdomain/zero/(1\.0)", "cc0-{0}"),
    (r"spdx\.org/licenses/([A-Za-z0-9.+-]+?)(?:\.html|\.txt|$)", "{0}"),
    (r"choosealicense\.com/licenses/([a-z0-9.+-]+)", "{0}"),
    (r"opensource\.org/licenses?/([A-Za-z0-9.+-]+)", "{0}"),
    (r"apache\.org/licenses/LICENSE-(2\.0)", "apache-{0}"),
    (r"gnu\.org/licenses/(a|l)?gpl-(\d\.\d)", "{0}gpl-{1}"),
)


@dataclass(frozen=True)
class LicenseFacts:
    """One row of the table."""

    id: str
    """The Hub's id, or for rows that the Hub has no id for, the name that others use."""
    spdx: str
    hub: str
    """`yes` where the Hub knows the id; else it must be published as `other` with this name."""
    commercial: str
    condition: str
    derivatives: str
    share_alike: str
    attribution: str
    use_limits: str
    ship_licence: str
    source: str
    """A link: the text, or the page that the facts were read from."""
    notes: str

    @property
    def is_known(self) -> bool:
        """Whether anything can be said; not so for `unknown`, `other` and the family `cc`."""
        return self.commercial != "unknown"

    @property
    def keeps_terms(self) -> bool:
        """Whether what is made of the work must stay under its terms, whatever else is said."""
        return self.share_alike in ("same", "same+network", "weak", "restrictions") or (
            self.condition in ("use", "user") and self.share_alike != "data"
        )

    @property
    def non_commercial(self) -> bool:
        """Whether commercial use is ruled out."""
        return self.commercial == "no"


@cache
def license_table() -> dict[str, LicenseFacts]:
    """Returns all rows by id."""
    return {row["id"]: LicenseFacts(**row) for row in _rows("licenses.csv")}


def facts_of(license_id: str | None) -> LicenseFacts:
    """Returns the row of a licence; that of `unknown` where nothing was said, of `other` where the table lacks it."""
    table = license_table()
    return table[UNKNOWN] if license_id is None else table.get(license_id, table[OTHER])


def normalise(text: str) -> str | None:
    """Returns the id that a text means, in whatever case and spelling; `None` where the table lacks it.

    Args:
        text (`str`):
            Such as `Apache-2.0`, `apache 2.0`, `GPL-3.0-or-later`, `CC BY-NC 4.0`.
    """
    name = re.sub(r"[\s_]+", "-", text.strip().lower())
    name = re.sub(r"^license:", "", name)
    table = license_table()
    bare = re.sub(r"^the-|-licen[cs]e$", "", name)
    for candidate in (name, re.sub(r"-(only|or-later)$", "", name), bare, f"{bare}-license"):
        candidate = _ALIASES.get(candidate, candidate)
        if candidate in table:
            return candidate
        if candidate in _by_spdx():
            return _by_spdx()[candidate]
    return None


def id_from_link(link: str) -> str | None:
    """Returns the licence that a well-known address is the text of; `None` for any other address."""
    for pattern, form in _LINKS:
        match = re.search(pattern, link)
        if match:
            return normalise(form.format(*(group or "" for group in match.groups())))
    bare = link.rstrip("/")
    found = [row.id for row in license_table().values() if row.source.rstrip("/") == bare and row.id != OWN]
    return found[0] if len(found) == 1 else None


def may_become(license_id: str, other: str) -> bool:
    """Returns whether what is under the one may be passed on under the other, by the words of the one."""
    return (license_id, other, "may become") in _relations()


def excludes(license_id: str, other: str) -> bool:
    """Returns whether works under the two cannot be joined in one that is under the other."""
    return (license_id, other, "excludes") in _relations()


@cache
def _by_spdx() -> dict[str, str]:
    return {row.spdx.lower(): row.id for row in license_table().values() if row.spdx}


@cache
def _relations() -> frozenset[tuple[str, str, str]]:
    return frozenset((row["license"], row["other"], row["relation"]) for row in _rows("license_compatibility.csv"))


@cache
def timm_twins() -> dict[str, str]:
    """Returns, by Hub id, timm's name for the same weights: both were made from one file (`license_twins.csv`)."""
    return {row["hub_id"]: row["timm_name"] for row in _rows("license_twins.csv")}


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("hf_transfer.publishing") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
