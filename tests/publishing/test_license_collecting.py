"""What is read from the Hub over HTTP and from its cache: one commit, bases, gates, and answers that fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_transfer.errors import UserError
from hf_transfer.publishing.license_chain import Chain
from hf_transfer.publishing.license_verdict import Grade
from tests.hub_server import HubServer
from tests.publishing.license_answers import APACHE, MIT, ask, card, said

ROOT = Path(__file__).resolve().parents[2]


def test_card_and_licence_files_at_one_commit(hub: HubServer, repo_id: str):
    repository = hub.add_model(repo_id, {**card(license="mit"), "LICENSE.md": APACHE, "NOTICE": b"names", "x.py": b""})
    link = ask(repo_id).links[0]
    assert said(link) == {"card": {"mit"}, "license file": {"apache-2.0"}}
    assert link.revision == repository.refs["main"]
    assert link.conflict
    assert link.files == ("LICENSE.md", "NOTICE")
    assert f"{repo_id}@{link.revision} LICENSE.md" in [statement.evidence for statement in link.statements]
    fetched = [path for _, path, _ in hub.requests if "/resolve/" in path]
    assert fetched
    assert all(f"/resolve/{link.revision}/" in path for path in fetched)
    assert not any("x.py" in path for path in fetched)


def test_a_revision_is_pinned(hub: HubServer, repo_id: str):
    repository = hub.add_model(repo_id, card(license="mit"))
    old = repository.refs["main"]
    repository.commit(card(license="cc-by-nc-4.0"))
    assert ask(repo_id).grade is Grade.FORBIDDEN
    verdict = ask(repo_id, model_revision=old)
    assert verdict.grade is Grade.OBLIGATIONS
    assert verdict.links[0].revision == old


def test_a_gated_model_shows_its_licence(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, {**card(license="gemma"), "LICENSE": b"Gemma Terms of Use"}, gated=True)
    link = ask(repo_id).links[0]
    assert said(link) == {"card": {"gemma"}}
    assert link.grade is Grade.OBLIGATIONS
    assert "LICENSE (gated)" in link.reason


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_what_surely_does_not_exist_is_an_error(hub: HubServer, repo_id: str, kind: str):
    hub.add_model(repo_id, card(license="mit"))
    with pytest.raises(UserError, match="shows no"):
        ask(f"{repo_id}-none") if kind == "model" else ask(repo_id, f"{repo_id}-none")
    with pytest.raises(UserError, match="no revision 'v9'"):
        ask(repo_id, model_revision="v9")


def test_a_base_that_does_not_exist_is_unknown(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="mit", base_model=f"{repo_id}-gone"))
    verdict = ask(repo_id)
    assert verdict.grade is Grade.REVIEW
    assert verdict.links[1].license is None
    assert "no such repository" in verdict.links[1].reason


def test_a_private_base_is_unknown(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="mit", base_model=f"{repo_id}-base"))
    hub.add_model(f"{repo_id}-base", card(license="mit"), private=True)
    assert ask(repo_id).grade is Grade.REVIEW


def test_three_bases_are_walked_up(hub: HubServer, repo_id: str):
    for number, license_id in enumerate(["apache-2.0", "mit", "bsd-3-clause", "cc-by-nc-4.0"]):
        hub.add_model(f"{repo_id}{number}", card(license=license_id, base_model=[f"{repo_id}{number + 1}"]))
    hub.add_model(f"{repo_id}4", card(license="mit"))
    verdict = ask(f"{repo_id}0")
    assert [link.role for link in verdict.links] == ["model", *["base model"] * 4]
    assert [link.license for link in verdict.links] == ["apache-2.0", "mit", "bsd-3-clause", "cc-by-nc-4.0", "mit"]
    assert verdict.grade is Grade.FORBIDDEN


def test_several_bases_of_one_model(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="mit", base_model=[f"{repo_id}a", f"{repo_id}b"]))
    hub.add_model(f"{repo_id}a", card(license="mit", base_model=f"{repo_id}b"))
    hub.add_model(f"{repo_id}b", card(license="gpl-3.0"))
    verdict = ask(repo_id)
    assert [link.work for link in verdict.links] == [repo_id, f"{repo_id}a", f"{repo_id}b"]
    assert verdict.outgoing is not None
    assert verdict.outgoing.license == "gpl-3.0"
    assert not any("circle" in note for note in verdict.notes)


def test_a_circle_ends(hub: HubServer, repo_id: str):
    hub.add_model(f"{repo_id}a", card(license="mit", base_model=f"{repo_id}b"))
    hub.add_model(f"{repo_id}b", card(license="mit", base_model=f"{repo_id}a"))
    verdict = ask(f"{repo_id}a")
    assert len(verdict.links) == 2
    assert any("round in a circle" in note for note in verdict.notes)
    assert verdict.grade is Grade.OBLIGATIONS


def test_a_model_that_is_its_own_base(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="mit", base_model=repo_id))
    assert len(ask(repo_id).links) == 1


def test_a_chain_without_end_is_cut_and_unknown(hub: HubServer, repo_id: str):
    for number in range(40):
        hub.add_model(f"{repo_id}{number}", card(license="mit", base_model=f"{repo_id}{number + 1}"))
    verdict = ask(f"{repo_id}0")
    assert len(verdict.links) < 15
    assert verdict.grade is Grade.REVIEW
    assert any("were not read" in note for note in verdict.notes)


def test_a_data_set_with_several_licences(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="apache-2.0"))
    hub.add_dataset(f"{repo_id}-data", card(license=["cc-by-4.0", "cc-by-nc-sa-4.0"]))
    verdict = ask(repo_id, f"{repo_id}-data")
    assert verdict.links[1].role == "dataset"
    assert verdict.links[1].license == "cc-by-nc-sa-4.0"
    assert "several licences" in verdict.links[1].reason
    assert verdict.grade is Grade.FORBIDDEN
    assert verdict.outgoing is not None
    assert verdict.outgoing.license == "cc-by-nc-sa-4.0"


def test_name_and_link_of_other(hub: HubServer, repo_id: str):
    link = {"license_name": "house-terms", "license_link": "https://example.org/terms"}
    hub.add_model(repo_id, card(license="other", **link))
    statement = ask(repo_id).links[0].statements[0]
    assert (statement.license, statement.name, statement.link) == ("other", "house-terms", "https://example.org/terms")
    hub.add_model(f"{repo_id}2", card(license="other", license_link="https://creativecommons.org/licenses/by-nc/4.0"))
    assert ask(f"{repo_id}2").links[0].license == "cc-by-nc-4.0"
    hub.add_model(f"{repo_id}3", {**card(license="other", license_name="x", license_link="LICENSE"), "LICENSE": MIT})
    assert ask(f"{repo_id}3").links[0].license == "mit"
    elsewhere = card(license="other", license_link="https://example.org/LICENSE")
    hub.add_model(f"{repo_id}4", {**elsewhere, "LICENSE": MIT})
    assert ask(f"{repo_id}4").grade is Grade.REVIEW


def test_an_unknown_text_beside_a_tag_needs_a_person(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, {**card(license="mit"), "LICENSE": b"You may look, but not touch."})
    assert ask(repo_id).grade is Grade.REVIEW


def test_what_is_written_in_a_card_reaches_nobody_as_it_is(hub: HubServer, repo_id: str):
    hub.add_model(
        repo_id, card(license="other", license_name="\x1b[31mred\nline\u202e" + "x" * 999, base_model="../../etc")
    )
    verdict = ask(repo_id)
    name = verdict.links[0].statements[0].name
    assert name is not None
    assert name.startswith("[31mred line")
    assert name.isprintable()
    assert len(name) == 300
    assert "no Hub id" in verdict.links[1].reason


@pytest.mark.parametrize(
    "text", [b"---\nlicense: [mit\n---\n", b"---\n- mit\n---\n", b"no header", b"---\nlicense: 4\n---\n"]
)
def test_a_card_without_usable_metadata_says_nothing(hub: HubServer, repo_id: str, text: bytes):
    hub.add_model(repo_id, {"README.md": text})
    assert ask(repo_id).links[0].license is None
    assert ask(repo_id).grade is Grade.REVIEW


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_hub_that_does_not_answer_leaves_it_unknown(hub: HubServer, repo_id: str, status: int):
    hub.add_model(repo_id, card(license="mit"))
    hub.fail(f"/api/models/{repo_id}", status)
    verdict = ask(repo_id)
    assert verdict.grade is Grade.REVIEW
    assert "did not answer" in verdict.links[0].reason


def test_the_cache_answers_for_the_hub(hub: HubServer, repo_id: str):
    repository = hub.add_model(repo_id, {**card(license="mit"), "LICENSE": MIT})
    before = ask(repo_id).links[0]
    asked = _ask_offline(hub, repo_id)
    assert asked["links"][0]["license"] == "mit"
    assert asked["links"][0]["revision"] == repository.refs["main"] == before.revision
    assert "HF_HUB_OFFLINE" in asked["links"][0]["reason"]
    nothing = _ask_offline(hub, f"{repo_id}-other")
    assert nothing["grade"] == "needs review"
    assert nothing["links"][0]["license"] is None


def test_a_hub_that_is_not_there(hub: HubServer, repo_id: str):
    answer = _ask_offline(hub, repo_id, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
    assert answer["grade"] == "needs review"
    assert "did not answer" in answer["links"][0]["reason"]


def _ask_offline(hub: HubServer, model: str, **variables: str) -> dict:
    """Asks in a process of its own, where HF_HUB_OFFLINE is set from the start."""
    hub.requests.clear()
    words = [sys.executable, "-m", "hf_transfer", "license", "--model", model, "--use", "commercial", "--json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    answer = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert answer.returncode in (0, 3), answer.stderr
    assert hub.requests == []
    return json.loads(answer.stdout)


def test_data_that_a_checkpoint_was_trained_on_are_named(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="mit", datasets=["someone/secret"]))
    assert any("someone/secret" in note and "not read" in note for note in ask(repo_id).notes)


def test_a_file_too_large_to_be_a_licence_is_not_fetched(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, {**card(license="mit"), "LICENSE": b"x" * 1_000_001})
    assert ask(repo_id).links[0].files == ()
    assert not any(path.endswith("/LICENSE") for _, path, _ in hub.requests)


def test_the_chain_keeps_the_order_in_which_works_were_found(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, card(license="mit", base_model="quickstart"))
    chain = Chain()
    chain.add_model(repo_id, None)
    # A base is always a Hub id: a card cannot point at this machine's folders.
    assert [(work.work, work.role) for work in chain.works] == [(repo_id, "model"), ("quickstart", "base model")]
    assert chain.works[1].statements == ()
