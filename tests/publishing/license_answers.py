"""How tests of the licence check ask, and what they read from the answer."""

import json
from importlib import resources

from hf_transfer.publishing.license_check import LicenseQuestion, check_licenses
from hf_transfer.publishing.license_verdict import LicenseLink, LicenseVerdict

TEXTS = resources.files("hf_transfer.publishing") / "texts"
APACHE = (TEXTS / "apache-2.0.txt").read_text(encoding="utf-8").encode()
MIT = (TEXTS / "mit.txt").read_text(encoding="utf-8").encode()


def card(**metadata: object) -> dict[str, bytes]:
    """Returns a repository that holds a card."""
    return {"README.md": f"---\n{json.dumps(metadata)}\n---\n# A card\n".encode()}


def ask(model: str, dataset: str | None = None, **options: object) -> LicenseVerdict:
    return check_licenses(LicenseQuestion(model=model, dataset=dataset, use="commercial", **options))  # type: ignore[arg-type]


def said(link: LicenseLink) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = {}
    for statement in link.statements:
        found.setdefault(statement.source, set()).add(statement.license)
    return found
