"""The faults that a push is tried with, and what is looked at afterwards.

Knows every call that a push makes, and what must be true however it ends: success, or one clear message with the run's
files as they were; no commit on main that holds some of the files; and a later push that completes. Used by the tests
and by `benchmarks/push_trials.py`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.hub.faults import KINDS
from tests.hub.repository import Repository
from tests.hub_server import HubServer
from tests.publishing.finished_run import contents

CALLS = (
    "auth_check",
    "whoami",
    "create_repo",
    "info",
    "tree",
    "validate_yaml",
    "preupload",
    "lfs_batch",
    "lfs_put",
    "lfs_verify",
    "commit",
    "resolve",
    "large",
    "tag",
    "refs",
    "create_collection",
    "add_to_collection",
)
"""In the order in which a push makes them."""
READS = ("auth_check", "whoami", "info", "tree", "resolve", "large", "refs", "validate_yaml", "preupload", "lfs_batch")
"""Calls without an effect, of which no effect can stay behind."""
ERRORS = tuple(kind for kind in KINDS if kind not in ("slow", "404-entry", "404"))
OPTIONS = ("--tag", "v1", "--collection", "Trials")
CARD = "---\nlicense: mit\nlibrary_name: transformers\n---\n# A model\n"


@dataclass(frozen=True)
class Case:
    """One fault of one call."""

    call: str
    kind: str
    times: int | None = 1
    after: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        often = "always" if self.times is None else f"{self.times}x"
        return f"{self.call} {self.kind} {'after' if self.after else 'before'} {often}"


def all_cases() -> list[Case]:
    """Returns each call hit by each kind of fault: once, with its effect where it has one, and for good."""
    cases = []
    for call in CALLS:
        for kind in ERRORS:
            cases.append(Case(call, kind, 1))
            if call not in READS:
                cases.append(Case(call, kind, 1, after=True))
        cases += [Case(call, kind, None) for kind in ("401", "403", "503", "502-html", "cut")]
        cases.append(Case(call, "slow", 1, seconds=0.2))
        cases.append(Case(call, "429", 2, seconds=3))
    return cases


def some_cases() -> list[Case]:
    """Returns a part of them that takes a minute: each call, each kind, and the commit by everything."""
    cases = [case for case in all_cases() if case.call == "commit"]
    for number, call in enumerate(name for name in CALLS if name != "commit"):
        kinds = [ERRORS[(2 * number + step) % len(ERRORS)] for step in range(2)]
        cases += [Case(call, kind, 1, after=call not in READS and step == 1) for step, kind in enumerate(kinds)]
        cases.append(Case(call, ("503", "403", "cut")[number % 3], None))
    return cases


def check_history(repository: Repository, files: set[str]) -> None:
    """Makes sure that every commit on main holds all files or none of them."""
    for commit in repository.history():
        there = set(repository.commits[commit]) & files
        assert there in (set(), files), f"{repository.titles[commit]} holds {len(there)} of {len(files)} files"


def check_end(
    hub: HubServer, repo_id: str, run: Path, before: dict[str, bytes], exit_code: int, error: str, token: str
) -> None:
    """Makes sure of everything that must be true after a push that was hit."""
    state = json.loads((run / "push.json").read_text(encoding="utf-8"))
    assert contents(run) == before, "the run's files are not what they were"
    assert token not in error + json.dumps(state)
    assert "Traceback" not in error
    repository = hub.repositories.get(("models", repo_id))
    if repository is not None and state["files"]:
        check_history(repository, set(state["files"]))
    if exit_code == 0:
        assert state["status"] == "done"
    else:
        assert exit_code in (1, 2), exit_code
        assert error.count("error: ") == 1, error
        assert state["error"]
        assert state["finish"].startswith(f"hf-transfer push {run} --repo-id {repo_id}")


def check_completed(hub: HubServer, repo_id: str, run: Path) -> None:
    """Makes sure that everything is on the Hub, once."""
    state = json.loads((run / "push.json").read_text(encoding="utf-8"))
    repository = hub.repositories["models", repo_id]
    check_history(repository, set(state["files"]))
    assert set(state["files"]) < set(repository.commits[repository.refs["main"]])
    assert len(list(repository.history())) == 2, "more than one commit was made"
    assert repository.tags == {"v1": repository.refs["main"]}
    assert [[item["id"] for item in collection["items"]] for collection in hub.collections.values()] == [[repo_id]]
    assert state["proof"]["commit"] == repository.refs["main"]
