"""Chains of works with the verdict that each must get, worked out by hand from the licences' texts.

A chain is written `m: card ID | b: card ID | d: card ID`: model, base model, data set; a work may have several
statements (`m: card ID, timm ID, file ID`), and `-` says nothing. `other/NAME` is `other` with that `license_name`.
Grades: A allowed, O allowed with obligations, R needs review, F forbidden.
"""

from dataclasses import dataclass

from hf_transfer.publishing.license_sources import Work
from hf_transfer.publishing.license_verdict import Grade, LicenseStatement

GRADES = {"A": Grade.ALLOWED, "O": Grade.OBLIGATIONS, "R": Grade.REVIEW, "F": Grade.FORBIDDEN}
ROLES = {"m": "model", "b": "base model", "d": "dataset"}
SOURCES = {"card": "card", "file": "license file", "timm": "timm registry", "user": "user"}


@dataclass(frozen=True)
class Case:
    """One chain: grades for research, commerce and publishing, and what it may be published under."""

    chain: str
    grades: str
    outgoing: str | None
    """Id, `other/NAME`, or `None`."""

    @property
    def works(self) -> list[Work]:
        """The works of the chain, called `model0`, `dataset1` and so on by their place."""
        return [_work(number, text.strip()) for number, text in enumerate(self.chain.split("|"))]


def _work(number: int, text: str) -> Work:
    role, _, said = text.partition(":")
    work = f"someone/{ROLES[role].replace(' ', '-')}{number}"
    statements = tuple(_statement(part.split(), work) for part in said.split(",") if part.strip() != "-")
    files = tuple("LICENSE" for statement in statements if statement.source == "license file")[:1]
    return Work(work, ROLES[role], "0" * 40, statements, files=files)


def _statement(words: list[str], work: str) -> LicenseStatement:
    source, license_id = words
    license_id, _, name = license_id.partition("/")
    evidence = f"{work}@{'0' * 40} {'LICENSE' if source == 'file' else 'README.md'}"
    return LicenseStatement(SOURCES[source], license_id, evidence, name or None)


CASES = [
    # Permissive
    Case("m: card apache-2.0 | d: card mit", "OOO", "apache-2.0"),
    Case("m: card mit | d: card apache-2.0", "OOO", "mit"),
    Case("m: card apache-2.0 | d: card cc0-1.0", "OOO", "apache-2.0"),
    Case("m: card apache-2.0 | d: card cc-by-4.0", "OOO", "apache-2.0"),
    Case("m: card bsd-3-clause | d: card pddl", "OOO", "bsd-3-clause"),
    Case("m: card cc0-1.0 | d: card cc0-1.0", "AAA", "cc0-1.0"),
    Case("m: card unlicense | d: user own", "AAA", "unlicense"),
    Case("m: card apache-2.0 | d: user own", "OOO", "apache-2.0"),
    Case("m: card apache-2.0", "OOO", "apache-2.0"),
    Case("m: card openmdw-1.0 | d: card cdla-permissive-2.0", "OOO", "openmdw-1.0"),
    # A dedication to the public domain would drop the names that the data ask for.
    Case("m: card cc0-1.0 | d: card cc-by-4.0", "OOO", "cc-by-4.0"),
    Case("m: card wtfpl | d: card mit", "OOO", "mit"),
    Case("m: card cc0-1.0 | d: card odbl", "OOO", "cc0-1.0"),
    Case("m: card apache-2.0, file apache-2.0, timm apache-2.0 | d: card mit, file mit", "OOO", "apache-2.0"),
    # Chains of bases
    Case("m: card apache-2.0 | b: card apache-2.0 | b: card mit | d: card cc0-1.0", "OOO", "apache-2.0"),
    Case("m: card apache-2.0 | b: card mit | b: card cc-by-nc-4.0 | d: card cc0-1.0", "OFO", "cc-by-nc-4.0"),
    Case("m: card mit | b: card apache-2.0 | b: card mit | b: card gpl-3.0 | d: user own", "OOO", "gpl-3.0"),
    Case("m: card apache-2.0 | b: - | d: card mit", "RRR", None),
    Case("m: card apache-2.0 | b: card mit | b: card apache-2.0 | b: card unknown", "RRR", None),
    Case("m: card apache-2.0 | b: card mit | b: card apple-amlr | d: card mit", "OFO", "apple-amlr"),
    # Share-alike
    Case("m: card cc-by-sa-4.0 | d: card cc-by-4.0", "OOO", "cc-by-sa-4.0"),
    Case("m: card apache-2.0 | d: card cc-by-sa-4.0", "OOO", "cc-by-sa-4.0"),
    Case("m: card cc-by-sa-3.0 | d: card cc-by-sa-4.0", "OOO", "cc-by-sa-4.0"),
    Case("m: card cc-by-sa-4.0 | d: card cc-by-sa-3.0", "OOO", "cc-by-sa-4.0"),
    Case("m: card gpl-3.0 | d: card cc-by-sa-4.0", "OOO", "gpl-3.0"),
    Case("m: card gpl-3.0 | d: card cc0-1.0", "OOO", "gpl-3.0"),
    Case("m: card agpl-3.0 | d: card mit", "OOO", "agpl-3.0"),
    Case("m: card apache-2.0 | d: card gpl-3.0", "OOO", "gpl-3.0"),
    Case("m: card mpl-2.0 | d: card mit", "OOO", "mpl-2.0"),
    Case("m: card lgpl-3.0 | d: card gpl-3.0", "OOO", "gpl-3.0"),
    Case("m: card cc-by-nc-sa-3.0 | d: card cc-by-nc-sa-4.0", "OFO", "cc-by-nc-sa-4.0"),
    # Share-alike of databases does not reach what is computed from them
    Case("m: card apache-2.0 | d: card odbl", "OOO", "apache-2.0"),
    Case("m: card mit | d: card cdla-sharing-1.0", "OOO", "mit"),
    Case("m: card mit | d: card c-uda", "OOO", "mit"),
    # Two that each ask for themselves
    Case("m: card gpl-2.0 | d: card cc-by-sa-4.0", "OOR", None),
    Case("m: card gpl-2.0 | d: card gpl-3.0", "OOR", None),
    Case("m: card cc-by-sa-4.0 | d: card cc-by-nc-4.0", "OFR", None),
    Case("m: card cc-by-sa-4.0 | d: card cc-by-nc-sa-4.0", "OFR", None),
    Case("m: card gpl-3.0 | d: card cc-by-nc-4.0", "OFR", None),
    Case("m: card agpl-3.0 | d: card osl-3.0", "OOR", None),
    Case("m: card gpl-2.0 | d: card apache-2.0", "OOR", None),
    Case("m: card creativeml-openrail-m | d: card cc-by-sa-4.0", "OOR", None),
    Case("m: card llama2 | d: card gpl-3.0", "ORR", None),
    # Use restrictions (RAIL)
    Case("m: card creativeml-openrail-m | d: card mit", "OOO", "creativeml-openrail-m"),
    Case("m: card bigscience-openrail-m | d: user own", "OOO", "bigscience-openrail-m"),
    Case("m: card apache-2.0 | b: card bigcode-openrail-m | d: card cc0-1.0", "OOO", "bigcode-openrail-m"),
    Case("m: card openrail++ | d: card cc-by-nc-4.0", "OFO", "other/openrail++-and-cc-by-nc-4.0"),
    Case(
        "m: card creativeml-openrail-m | b: card bigscience-openrail-m | d: card mit",
        "OOO",
        "other/creativeml-openrail-m-and-bigscience-openrail-m",
    ),
    Case("m: card openrail | d: card mit", "RRR", None),
    # Vendors' terms
    Case("m: card gemma | d: card mit", "OOO", "gemma"),
    Case("m: card llama3.2 | d: card cc-by-4.0", "ORO", "llama3.2"),
    Case("m: card grok2-community | d: card mit", "ORO", "grok2-community"),
    Case("m: card llama2 | b: card llama3 | d: card mit", "ORR", None),
    Case("m: card other/nvidia-open-model-license | d: card mit", "OOO", "other/nvidia-open-model-license"),
    Case("m: card apple-ascl | d: card mit", "RRR", None),
    Case("m: card other/cvnets-license | d: card mit", "RRR", None),
    Case("m: card other/dinov3-license | d: card mit", "RRR", None),
    # Non-commercial
    Case("m: card apache-2.0 | d: card cc-by-nc-4.0", "OFO", "cc-by-nc-4.0"),
    Case("m: card cc-by-nc-4.0 | d: card mit", "OFO", "cc-by-nc-4.0"),
    Case("m: card cc-by-nc-4.0 | d: card cc-by-nc-sa-4.0", "OFO", "cc-by-nc-sa-4.0"),
    Case("m: card cc-by-nc-4.0 | d: card cc-by-nc-2.0", "OFO", "cc-by-nc-4.0"),
    Case(
        "m: card fair-noncommercial-research-license | d: card cc-by-nc-4.0",
        "OFO",
        "fair-noncommercial-research-license",
    ),
    Case("m: card intel-research | d: card mit", "OFO", "intel-research"),
    Case("m: card deepfloyd-if-license | d: card cc-by-nc-sa-4.0", "OFR", None),
    Case("m: card apache-2.0 | d: file cc-by-nc-2.5", "OFO", "other/cc-by-nc-2.5"),
    # No derivatives
    Case("m: card cc-by-nd-4.0 | d: card mit", "OOF", None),
    Case("m: card apache-2.0 | d: card cc-by-nd-4.0", "OOF", None),
    Case("m: card apache-2.0 | d: card cc-by-nc-nd-4.0", "OFF", None),
    Case("m: card mit | d: card cc-by-nc-nd-3.0", "RFF", None),
    Case("m: card mit | d: file cc-by-nd-3.0", "RRF", None),
    # Sources that disagree
    Case("m: card apache-2.0, timm cc-by-nc-4.0 | d: card mit", "OFO", "cc-by-nc-4.0"),
    Case("m: card cc-by-nc-4.0, timm apache-2.0 | d: card mit", "OFO", "cc-by-nc-4.0"),
    Case("m: card mit, file gpl-3.0 | d: card mit", "OOO", "gpl-3.0"),
    Case("m: card mit, file cc-by-nc-4.0, timm apache-2.0", "OFO", "cc-by-nc-4.0"),
    Case("m: card apache-2.0 | d: card cc-by-4.0, user cc0-1.0", "OOO", "apache-2.0"),
    Case("m: card apache-2.0, file other | d: card mit", "RRR", None),
    Case("m: card other, timm cc-by-nc-4.0 | d: card mit", "RFR", None),
    # One card, several licences
    Case("m: card apache-2.0 | d: card mit, card cc-by-nc-4.0", "OFO", "cc-by-nc-4.0"),
    Case("m: card apache-2.0 | d: card cc-by-4.0, card cc-by-sa-4.0", "OOO", "cc-by-sa-4.0"),
    Case("m: card apache-2.0 | d: card mit, card other", "RRR", None),
    # `other` that its own LICENSE explains
    Case("m: card other, file cc-by-nc-4.0 | d: card mit", "OFO", "cc-by-nc-4.0"),
    Case("m: card other, file mit | d: card mit", "OOO", "mit"),
    # Unknown and missing
    Case("m: card apache-2.0 | d: -", "RRR", None),
    Case("m: - | d: card mit", "RRR", None),
    Case("m: card unknown | d: card mit", "RRR", None),
    Case("m: card apache-2.0 | d: card unknown", "RRR", None),
    Case("m: card apache-2.0 | d: card other", "RRR", None),
    Case("m: card cc | d: card mit", "RRR", None),
    Case("m: card cc-by-nc-4.0 | d: -", "RFR", None),
    Case("m: timm mit | d: card cc0-1.0", "OOO", "mit"),
    # A card that says `unknown` says nothing; another source may
    Case("m: card unknown, file mit | d: card cc0-1.0", "OOO", "mit"),
    Case("m: card unknown, timm cc-by-nc-4.0 | d: card mit", "OFO", "cc-by-nc-4.0"),
]
