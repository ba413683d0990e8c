import dataclasses
import json

from hf_transfer.publishing.license_verdict import (
    Grade,
    LicenseLink,
    LicenseStatement,
    LicenseVerdict,
    Obligation,
    OutgoingLicense,
    Override,
    worst,
)
from hf_transfer.report import to_plain


def test_a_chain_is_as_good_as_its_worst_link():
    assert worst([Grade.OBLIGATIONS, Grade.REVIEW, Grade.ALLOWED]) is Grade.REVIEW
    assert worst([]) is Grade.ALLOWED
    assert [grade.exit_code for grade in Grade] == [0, 0, 3, 4]


def test_a_verdict_survives_the_report():
    statement = LicenseStatement("card", "other", "me/model@abc README.md", "odd", "https://example.org/odd")
    link = LicenseLink("me/model", "model", "abc", (statement,), "other", False, Grade.REVIEW, "nobody knows it")
    verdict = LicenseVerdict(
        use="commercial",
        grade=Grade.REVIEW,
        publishing=Grade.OBLIGATIONS,
        links=(link,),
        obligations=(Obligation("me/model", "name the authors", "in the card"),),
        overrides=(Override("me/data", "mit", "https://example.org/mit", "2026-11-23"),),
        outgoing=OutgoingLicense("other", "odd", "LICENSE", "the base asks for it", ("LICENSE",)),
        notes=("a note",),
    )
    kept = json.loads(json.dumps(to_plain(dataclasses.asdict(verdict))))
    assert LicenseVerdict.from_dict(kept) == verdict
    assert LicenseVerdict.from_dict(kept | {"outgoing": None}).outgoing is None
