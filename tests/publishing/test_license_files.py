"""The texts and notices that travel along are written as the verdict announced them."""

import json
from importlib import resources
from pathlib import Path

import pytest

from hf_transfer.errors import UserError
from hf_transfer.publishing.license_check import LicenseQuestion, check_licenses, verdict_of
from hf_transfer.publishing.license_files import write_license_files
from hf_transfer.publishing.license_texts import recognise
from hf_transfer.publishing.license_verdict import LicenseVerdict
from hf_transfer.report import to_plain
from tests.hub_server import HubServer
from tests.publishing.license_answers import APACHE, MIT, card
from tests.publishing.license_cases import CASES, Case

SOURCELESS = [case for case in CASES if "file" not in case.chain and case.outgoing]


def written(verdict: LicenseVerdict, folder: Path) -> dict[str, str]:
    names = write_license_files(verdict, folder)
    found = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert verdict.outgoing is not None
    assert set(names) == set(verdict.outgoing.files) == set(found)
    return found


def test_files_of_model_and_data_travel_along(hub: HubServer, repo_id: str, tmp_path: Path):
    notice = b"Copyright somebody\n"
    hub.add_model(repo_id, {**card(license="apache-2.0"), "LICENSE": APACHE, "NOTICE": notice})
    hub.add_dataset(f"{repo_id}-data", {**card(license="mit"), "LICENSE.md": MIT})
    verdict = check_licenses(LicenseQuestion(model=repo_id, dataset=f"{repo_id}-data", use="commercial"))
    kept = LicenseVerdict.from_dict(json.loads(json.dumps(to_plain(verdict))))
    assert kept == verdict
    files = written(kept, tmp_path)
    slug = repo_id.replace("/", "--")
    assert files["LICENSE"].encode() == APACHE
    assert files[f"licenses/{slug}/LICENSE"].encode() == APACHE
    assert files[f"licenses/{slug}/NOTICE"].encode() == notice
    assert files[f"licenses/{slug}-data/LICENSE.md"].encode() == MIT
    assert f"{repo_id}, commit {verdict.links[0].revision}" in files["NOTICE"]
    assert "fine-tuning" in files["NOTICE"]
    duties = {duty.duty: duty.how_met for duty in verdict.obligations}
    assert duties["pass on its NOTICE"] == "in licenses/"


def test_they_are_those_of_the_pinned_commit(hub: HubServer, repo_id: str, tmp_path: Path):
    repository = hub.add_model(repo_id, {**card(license="apache-2.0"), "LICENSE": APACHE})
    verdict = check_licenses(LicenseQuestion(model=repo_id, use="commercial"))
    repository.commit({**card(license="mit"), "LICENSE": MIT})
    assert written(verdict, tmp_path)["LICENSE"].encode() == APACHE


def test_texts_that_no_work_brings_come_with_the_package(hub: HubServer, repo_id: str, tmp_path: Path):
    hub.add_model(repo_id, card(license="apache-2.0"))
    hub.add_dataset(f"{repo_id}-data", card(license="mit"))
    verdict = check_licenses(LicenseQuestion(model=repo_id, dataset=f"{repo_id}-data", use="commercial"))
    files = written(verdict, tmp_path)
    assert recognise(files["LICENSE"]) == ("apache-2.0",)
    assert recognise(files["licenses/mit.txt"]) == ("mit",)


def test_creative_commons_by_link(tmp_path: Path):
    verdict = verdict_of(Case("m: card mit | d: card cc-by-nc-4.0", "", None).works, "research")
    files = written(verdict, tmp_path)
    assert "https://creativecommons.org/licenses/by-nc/4.0/legalcode" in files["LICENSE"]
    assert "CC-BY-NC-4.0" in files["NOTICE"]


def test_two_sets_of_terms_are_both_named(tmp_path: Path):
    verdict = verdict_of(Case("m: card openrail++ | d: card cc-by-nc-4.0", "", None).works, "research")
    text = written(verdict, tmp_path)["LICENSE"]
    assert "openrail++" in text
    assert "CC-BY-NC-4.0" in text
    assert verdict.outgoing is not None
    assert verdict.outgoing.link == "LICENSE"


@pytest.mark.parametrize("case", SOURCELESS, ids=lambda case: case.chain)
def test_every_chain_that_may_be_published_gets_its_files(case: Case, tmp_path: Path):
    files = written(verdict_of(case.works, "research"), tmp_path)
    assert all(f"{work.role}: {work.work}" in files["NOTICE"] for work in case.works)


def test_no_path_of_this_machine_is_published(tmp_path: Path):
    model = tmp_path / "secret place" / "my model"
    model.mkdir(parents=True)
    (model / "LICENSE").write_bytes(MIT)
    question = LicenseQuestion(model=str(model), dataset=str(model), use="commercial", data_license="own")
    (tmp_path / "out").mkdir()
    files = written(check_licenses(question), tmp_path / "out")
    assert files["licenses/my-model/LICENSE"].encode() == MIT
    assert not any("secret" in name or "secret" in text for name, text in files.items())


def test_nothing_is_written_for_what_may_not_be_published(tmp_path: Path):
    verdict = verdict_of(Case("m: card cc-by-nd-4.0", "", None).works, "research")
    with pytest.raises(ValueError, match="may not be published"):
        write_license_files(verdict, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_cannot_be_had_any_more_is_told(hub: HubServer, repo_id: str, tmp_path: Path):
    hub.add_model(repo_id, card(license="mit"))
    verdict = check_licenses(LicenseQuestion(model=repo_id, use="commercial"))
    links = json.loads(json.dumps(to_plain(verdict)))
    links["links"][0]["files"] = ["COPYING"]
    hub.reset()
    with pytest.raises(UserError, match=repo_id):
        write_license_files(LicenseVerdict.from_dict(links), tmp_path)


def test_packaged_texts_are_in_the_package():
    assert (resources.files("hf_transfer.publishing") / "texts" / "apache-2.0.txt").is_file()
