"""Every chain of `license_cases` gets the verdict that was worked out by hand."""

import dataclasses

import pytest

from hf_transfer.errors import UserError
from hf_transfer.publishing.license_check import license_decision, verdict_of
from hf_transfer.publishing.license_sources import Work
from hf_transfer.publishing.license_table import facts_of, license_table
from hf_transfer.publishing.license_verdict import Grade, LicenseStatement, Override
from tests.publishing.license_cases import CASES, GRADES, Case


def test_there_are_enough_of_them():
    assert len(CASES) >= 60
    assert len({case.chain for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.chain)
def test_verdict(case: Case):
    research, commercial, publishing = (GRADES[letter] for letter in case.grades)
    assert verdict_of(case.works, "research").grade is research
    verdict = verdict_of(case.works, "commercial")
    assert verdict.grade is commercial
    assert verdict.publishing is publishing
    outgoing = verdict.outgoing
    found = outgoing and (f"{outgoing.license}/{outgoing.name}" if outgoing.name else outgoing.license)
    assert found == case.outgoing


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.chain)
def test_what_holds_for_every_chain(case: Case):
    for use in ("research", "commercial"):
        verdict = verdict_of(case.works, use)
        # Nothing is published under terms that a work rules out, and nothing without terms.
        assert (verdict.outgoing is None) == (verdict.publishing in (Grade.REVIEW, Grade.FORBIDDEN))
        assert len(verdict.links) == len(case.works)
        if verdict.outgoing is None:
            assert not any("published under" in duty.how_met for duty in verdict.obligations)
        else:
            assert verdict.outgoing.files
            if any(facts_of(link.license).non_commercial for link in verdict.links):
                name = verdict.outgoing.name or verdict.outgoing.license
                assert any(facts_of(part).non_commercial for part in name.split("-and-"))
        # Leaving a work out never makes the verdict worse.
        rest = verdict_of(case.works[:1], use)
        assert list(Grade).index(rest.grade) <= list(Grade).index(verdict.grade)


def test_no_licence_that_is_not_known_to_permit_it_permits_commerce():
    for license_id, facts in license_table().items():
        work = Work("someone/model", "model", None, (LicenseStatement("card", license_id, "README.md"),))
        grade = verdict_of([work], "commercial").grade
        assert (grade in (Grade.ALLOWED, Grade.OBLIGATIONS)) == (
            facts.commercial == "yes" and facts.derivatives != "no" or facts.condition == "use"
        ), license_id


@pytest.mark.parametrize(
    ("chain", "chosen", "found"),
    [
        ("m: card apache-2.0 | d: card cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("m: card mit | d: card mit", "gpl-3.0", "gpl-3.0"),
        ("m: card mit", "cc-by-nd-4.0", "cc-by-nd-4.0"),
        ("m: card mit | d: card cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
        ("m: card lgpl-2.1", "gpl-2.0", "gpl-2.0"),
        ("m: card unlicense", "cc0-1.0", "cc0-1.0"),
        ("m: card mit | d: card cc-by-nd-4.0", "mit", None),
        ("m: card mit | d: card unknown", "mit", None),
    ],
)
def test_a_stricter_licence_is_the_users_choice(chain: str, chosen: str, found: str | None):
    verdict = verdict_of(Case(chain, "", None).works, "research", chosen=facts_of(chosen))
    assert (verdict.outgoing and verdict.outgoing.license) == found
    if verdict.outgoing is not None:
        assert "you chose" in verdict.outgoing.reason


@pytest.mark.parametrize(
    ("chain", "chosen", "work"),
    [
        ("m: card apache-2.0", "cc0-1.0", "someone/model0 (apache-2.0)"),
        ("m: card mit | d: card cc-by-nc-4.0", "mit", "(cc-by-nc-4.0)"),
        ("m: card cc-by-sa-4.0", "mit", "someone/model0 (cc-by-sa-4.0)"),
        ("m: card cc-by-sa-4.0", "cc-by-nc-4.0", "someone/model0 (cc-by-sa-4.0)"),
        ("m: card openrail++", "apache-2.0", "someone/model0 (openrail++)"),
        ("m: card apache-2.0", "gpl-2.0", "someone/model0 (apache-2.0)"),
    ],
)
def test_a_looser_licence_is_refused(chain: str, chosen: str, work: str):
    with pytest.raises(UserError) as refusal:
        verdict_of(Case(chain, "", None).works, "research", chosen=facts_of(chosen))
    assert f"--license {chosen} does not keep what " in str(refusal.value)
    assert work in str(refusal.value)


def test_what_is_all_yours_has_the_licence_that_you_choose():
    works = Case("m: user own | d: user own", "", None).works
    undecided = verdict_of(works, "research")
    assert (undecided.publishing, undecided.outgoing) == (Grade.REVIEW, None)
    assert any("--license ID" in note for note in undecided.notes)
    decided = verdict_of(works, "research", chosen=facts_of("bsd-3-clause"))
    assert (decided.publishing, decided.outgoing.license) == (Grade.ALLOWED, "bsd-3-clause")


def test_disagreement_is_shown():
    verdict = verdict_of(Case("m: card apache-2.0, timm cc-by-nc-4.0", "", None).works, "commercial")
    assert verdict.links[0].conflict
    assert verdict.links[0].license == "cc-by-nc-4.0"
    assert "disagree" in verdict.links[0].reason
    assert any("Sources disagree about someone/model0" in note for note in verdict.notes)
    agreeing = verdict_of(Case("m: card apache-2.0, timm apache-2.0", "", None).works, "commercial")
    assert not agreeing.links[0].conflict


def test_without_a_use_research_is_judged():
    works = Case("m: card cc-by-nc-4.0 | d: card mit", "", None).works
    verdict = verdict_of(works, None)
    assert (verdict.use, verdict.grade) == (None, Grade.OBLIGATIONS)
    assert "--use was not given" in license_decision(verdict).reason


def test_data_can_be_reported_only():
    works = Case("m: card apache-2.0 | d: card cc-by-nc-4.0", "", None).works
    bound, shown = verdict_of(works, "commercial"), verdict_of(works, "commercial", data_report_only=True)
    assert bound.grade is Grade.FORBIDDEN
    assert shown.grade is Grade.OBLIGATIONS
    assert shown.links[1].grade is Grade.FORBIDDEN
    assert shown.outgoing is not None
    assert shown.outgoing.license == "apache-2.0"
    assert {duty.work for duty in shown.obligations} == {"someone/model0"}
    assert any("open in law" in note for note in shown.notes)


def test_an_override_counts_and_is_recorded():
    works = Case("m: card other/house-licence | d: card mit", "", None).works
    override = Override("someone/model0", "mit", "https://example.org/letter", "2026-11-23")
    verdict = verdict_of(works, "commercial", overrides=[override])
    assert verdict.grade is Grade.OBLIGATIONS
    assert verdict.overrides == (override,)
    assert [said.source for said in verdict.links[0].statements] == ["card", "user"]
    assert "https://example.org/letter" in verdict.links[0].reason


def test_an_override_for_a_work_outside_of_the_chain():
    works = Case("m: card apache-2.0", "", None).works
    override = Override("someone/modle0", "mit", "https://example.org", "2026-11-23")
    with pytest.raises(UserError, match="not in the chain") as raised:
        verdict_of(works, "research", overrides=[override])
    assert "someone/model0=mit" in str(raised.value)


def test_everything_by_the_user_leaves_the_choice_to_them():
    verdict = verdict_of(Case("m: user own | d: user own", "", None).works, "commercial")
    assert verdict.grade is Grade.ALLOWED
    assert verdict.outgoing is None
    assert any("choose a licence yourself" in note for note in verdict.notes)


def test_a_good_word_of_a_registry_about_an_unread_work_is_no_permission():
    work = dataclasses.replace(Case("m: timm mit", "", None).works[0], problem="the Hub did not answer")
    assert verdict_of([work], "commercial").grade is Grade.REVIEW
    bad = dataclasses.replace(Case("m: timm cc-by-nc-4.0", "", None).works[0], problem="the Hub did not answer")
    assert verdict_of([bad], "commercial").grade is Grade.FORBIDDEN


def test_duties_of_a_permissive_chain():
    verdict = verdict_of(Case("m: card apache-2.0 | d: file mit", "", None).works, "commercial")
    duties = {(duty.work, duty.duty): duty.how_met for duty in verdict.obligations}
    assert duties["someone/model0", "pass on the text of apache-2.0"] == "LICENSE"
    assert duties["someone/dataset1", "pass on the text of mit"] == "licenses/someone--dataset1/LICENSE"
    assert "NOTICE" in duties["someone/dataset1", "name its authors, mit and what was changed"]


def test_a_duty_that_nothing_meets_says_so():
    verdict = verdict_of(Case("m: card gemma", "", None).works, "commercial")
    duties = {duty.duty: duty.how_met for duty in verdict.obligations}
    assert duties["pass on the text of gemma"].startswith("not met")
    assert duties["bind whoever gets the model to the use restrictions of gemma"] == "published under gemma"
    unpublished = verdict_of(Case("m: card cc-by-nd-4.0", "", None).works, "commercial")
    assert all("nothing is published" in d.how_met or "yours" in d.how_met for d in unpublished.obligations)
