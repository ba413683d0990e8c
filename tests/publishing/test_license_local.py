"""What is read from timm's registry, from this disk, from earlier runs, and from the user's own word."""

import json
import tarfile
from pathlib import Path

import pytest
import timm

from hf_transfer.errors import UserError
from hf_transfer.publishing.license_sources import describe, is_license_file, is_notice_file, one_line
from hf_transfer.publishing.license_verdict import Grade, LicenseVerdict
from hf_transfer.report import write_json
from tests.hub_server import HubServer
from tests.publishing.license_answers import MIT, ask, card, said


def test_timm_is_a_second_opinion_on_its_own_ids(hub: HubServer):
    hub.add_model("timm/convnextv2_tiny.fcmae_ft_in1k", card(license="apache-2.0"))
    link = ask("timm/convnextv2_tiny.fcmae_ft_in1k").links[0]
    assert said(link) == {"card": {"apache-2.0"}, "timm registry": {"cc-by-nc-4.0"}}
    assert (link.conflict, link.grade, link.license) == (True, Grade.FORBIDDEN, "cc-by-nc-4.0")
    assert f"timm {timm.__version__}" in link.statements[1].evidence


def test_timm_is_a_second_opinion_on_the_same_weights_under_another_name(hub: HubServer):
    hub.add_model("facebook/convnextv2-tiny-22k-224", card(license="apache-2.0"))
    verdict = ask("facebook/convnextv2-tiny-22k-224")
    assert verdict.links[0].conflict
    assert verdict.grade is Grade.FORBIDDEN
    assert any("card apache-2.0, timm registry cc-by-nc-4.0" in note for note in verdict.notes)


def test_timm_is_a_second_opinion_on_folders_that_name_its_tags(tmp_path: Path):
    config = {"architecture": "convnextv2_tiny", "pretrained_cfg": {"tag": "fcmae_ft_in1k"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert ask(str(tmp_path)).grade is Grade.FORBIDDEN
    config["pretrained_cfg"] = {"tag": "mine"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert ask(str(tmp_path)).grade is Grade.REVIEW


def test_names_of_timm_without_a_row_are_shown(hub: HubServer):
    hub.add_model("timm/convnext_tiny.dinov3_lvd1689m", card(license="other"))
    link = ask("timm/convnext_tiny.dinov3_lvd1689m").links[0]
    assert link.grade is Grade.REVIEW
    assert "dinov3-license" in [statement.name for statement in link.statements]


def test_folders_and_archives_on_this_disk(tmp_path: Path):
    model, data = tmp_path / "model", tmp_path / "pictures"
    model.mkdir()
    data.mkdir()
    (model / "README.md").write_bytes(card(license="apache-2.0")["README.md"])
    (data / "LICENSE").write_bytes(MIT)
    with tarfile.open(tmp_path / "pictures.tar", "w") as archive:
        archive.add(data, arcname="pictures")
    for dataset in (data, tmp_path / "pictures.tar"):
        verdict = ask(str(model), str(dataset))
        assert [link.license for link in verdict.links] == ["apache-2.0", "mit"]
        assert verdict.grade is Grade.OBLIGATIONS


def test_pictures_of_ones_own(tmp_path: Path):
    unknown = ask("quickstart", str(tmp_path))
    assert unknown.grade is Grade.REVIEW
    mine = ask("quickstart", str(tmp_path), data_license="own")
    assert mine.grade is Grade.OBLIGATIONS
    assert said(mine.links[1]) == {"user": {"own"}}
    (tmp_path / "LICENSE").write_bytes(MIT)
    assert ask("quickstart", str(tmp_path), data_license="cc-by-nc-4.0").grade is Grade.FORBIDDEN


def test_ones_own_word_on_somebody_elses_data_needs_evidence(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, card())
    with pytest.raises(UserError, match="somebody else's") as raised:
        ask("quickstart", repo_id, data_license="mit")
    assert f"--license_override {repo_id}=mit --license_evidence" in str(raised.value)


def test_what_comes_with_the_package(hub: HubServer):
    verdict = ask("quickstart", "digits")
    assert [link.license for link in verdict.links] == ["apache-2.0", "cc-by-4.0"]
    assert verdict.grade is Grade.OBLIGATIONS
    assert hub.requests == []


def test_a_model_of_ours_leads_to_what_it_was_made_from(tmp_path: Path, hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="cc-by-nc-4.0"))
    first = ask(repo_id, "digits")
    (tmp_path / "model").mkdir()
    report = {"checkpoint": {"source": repo_id}, "data": {"name": "digits"}, "outputs": {"model": "model"}}
    write_json({**report, "license": first}, tmp_path / "run.json")
    verdict = ask(str(tmp_path / "model"), str(tmp_path), data_license="own")
    assert [(link.role, link.license) for link in verdict.links] == [
        ("model", "own"),
        ("base model", "cc-by-nc-4.0"),
        ("dataset", "cc-by-4.0"),
        ("dataset", "own"),
    ]
    assert verdict.grade is Grade.FORBIDDEN
    assert verdict.outgoing is not None
    assert verdict.outgoing.license == "cc-by-nc-4.0"
    write_json(report, tmp_path / "run.json")
    assert ask(str(tmp_path / "model")).grade is Grade.REVIEW


def earlier_run(folder: Path, source: str, verdict: LicenseVerdict | None) -> Path:
    """Writes as much of a run as says what its model was made from, and returns the model's folder."""
    (folder / "model").mkdir(exist_ok=True)
    report = {"checkpoint": {"source": source}, "data": {"name": "digits"}, "outputs": {"model": "model"}}
    write_json({**report, "license": verdict}, folder / "run.json")
    return folder / "model"


def test_what_an_earlier_run_could_not_read_stays_unknown(tmp_path: Path, hub: HubServer):
    name = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    hub.add_model(name, card(license="apache-2.0"))
    hub.fail(f"/api/models/{name}", 503)
    unread = ask(name)
    assert said(unread.links[0]) == {"timm registry": {"apache-2.0"}}
    assert unread.grade is Grade.REVIEW
    assert ask(str(earlier_run(tmp_path, name, unread))).grade is Grade.REVIEW


def test_another_word_on_the_same_pictures_is_added(tmp_path: Path):
    first = ask("quickstart", str(tmp_path), data_license="own")
    model = str(earlier_run(tmp_path, "quickstart", first))
    assert ask(model, str(tmp_path), data_license="own").grade is Grade.OBLIGATIONS
    verdict = ask(model, str(tmp_path), data_license="cc-by-nc-4.0")
    assert len([link for link in verdict.links if link.role == "dataset"]) == 1
    assert verdict.grade is Grade.FORBIDDEN


def test_another_commit_of_the_same_data_is_another_work(tmp_path: Path, hub: HubServer, repo_id: str):
    repository = hub.add_dataset(repo_id, card(license="mit"))
    model = str(earlier_run(tmp_path, "quickstart", ask("quickstart", repo_id)))
    repository.commit(card(license="cc-by-nc-4.0"))
    verdict = ask(model, repo_id)
    assert [link.license for link in verdict.links if link.role == "dataset"] == ["mit", "cc-by-nc-4.0"]
    assert verdict.grade is Grade.FORBIDDEN


def test_overrides_of_an_earlier_run_are_carried_on(tmp_path: Path, hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="other"))
    first = ask(repo_id, overrides=(f"{repo_id}=mit",), evidence=("https://example.org/letter",))
    (tmp_path / "model").mkdir()
    report = {"checkpoint": {"source": repo_id}, "data": {"name": "digits"}, "outputs": {"model": "model"}}
    write_json({**report, "license": first}, tmp_path / "run.json")
    verdict = ask(str(tmp_path / "model"))
    assert verdict.grade is Grade.OBLIGATIONS
    assert verdict.overrides == first.overrides
    again = ask(str(tmp_path / "model"), overrides=(f"{repo_id}=cc-by-nc-4.0",), evidence=("https://example.org",))
    assert again.grade is Grade.FORBIDDEN
    assert [override.license for override in again.overrides] == ["cc-by-nc-4.0"]


@pytest.mark.parametrize(
    "name", ["LICENSE", "LICENCE.txt", "license.md", "COPYING", "LICENSE-MODEL", "LICENSES", "MODEL_LICENSE"]
)
def test_names_of_licence_files(name: str):
    assert is_license_file(name)


@pytest.mark.parametrize(
    "name",
    [
        "license.py",
        "THIRD_PARTY_LICENSES.txt",
        "third-party-licenses",
        "licensed.txt",
        "LICENSE.json",
        "README.md",
        "relicense.md",
    ],
)
def test_names_of_other_files(name: str):
    assert not is_license_file(name)


def test_notices():
    assert is_notice_file("NOTICE")
    assert is_notice_file("Notice.txt")
    assert is_notice_file("THIRD_PARTY_LICENSES.txt")
    assert not is_notice_file("NOTICE-board.png")


def test_one_line():
    assert one_line("a\tb\n\u2028c\x00d") == "a b c d"


def test_a_folder_without_anything(tmp_path: Path):
    work = describe("here", "model", tmp_path)
    assert (work.statements, work.files, work.bases) == ((), (), ())


def test_real_checkpoints_and_pictures(assets: Path):
    for checkpoint in sorted((assets / "checkpoints").iterdir()):
        for data, license_id in (("clothing10.tar", "cc0-1.0"), ("bccd3.tar", "mit"), ("rbc12.tar", "mit")):
            verdict = ask(str(checkpoint), str(assets / "datasets" / data))
            assert [link.license for link in verdict.links] == ["apache-2.0", license_id]
            assert not any(link.conflict for link in verdict.links)
            assert verdict.grade is Grade.OBLIGATIONS
