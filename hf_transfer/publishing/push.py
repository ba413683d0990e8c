"""The push of a finished run: from its folder to a commit that was downloaded again and compared.

Knows the order of the steps and writes down how far it came (`push.json`), so that the same command can take it up.
Every step looks first whether it is done already. Each is made next door.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from hf_transfer.errors import UserError
from hf_transfer.publishing.hub_target import HubTarget, full_repo_id
from hf_transfer.publishing.license_verdict import LicenseVerdict
from hf_transfer.publishing.publish_folder import CARD, collect_files
from hf_transfer.publishing.push_access import check_logged_in
from hf_transfer.publishing.push_card import with_card
from hf_transfer.publishing.push_permission import check_publishing, verdict_of_report
from hf_transfer.publishing.push_proof import prove
from hf_transfer.publishing.push_request import PushRequest, PushState, read_state
from hf_transfer.publishing.widget_pictures import (
    choose_pictures,
    may_travel,
    reload_test_split,
    stored_pictures,
)
from hf_transfer.report import read_run


def push_run(request: PushRequest, test: datasets.Dataset | None = None) -> PushState:
    """Pushes a finished run, or does what is left of it.

    Args:
        request (`PushRequest`):
            What to push where.
        test (`datasets.Dataset`, *optional*):
            The test split, where it is at hand; else it is read again if pictures are to go along.

    Returns:
        `PushState`: what `push.json` holds.

    Raises:
        UserError: with `push.json` saying how far it came; the run's other files are as they were.
    """
    report = read_run(request.run)
    if not os.access(request.run, os.W_OK):
        raise UserError(
            f"{request.run} cannot be written to, so nobody could say later how far the push came.",
            hint="copy the run to a folder of your own, and push that",
        )
    verdict = verdict_of_report(report)
    check_publishing(verdict, request.run)
    before = read_state(request.run)
    state = before.new_attempt(request)
    try:
        check_logged_in(request.token)
        _push(request, report, verdict, state, test)
    except UserError as error:
        state.status = state.status if state.status in ("published", "proven") else "failed"
        state.error, state.finish = str(error.given), request.command
        raise
    finally:
        state.write(request.run)
    return state


def _push(
    request: PushRequest,
    report: Mapping[str, Any],
    verdict: LicenseVerdict | None,
    state: PushState,
    test: datasets.Dataset | None,
) -> None:
    repo_id = full_repo_id(request.repo_id, request.token)
    with tempfile.TemporaryDirectory(prefix="hf-transfer-push-") as name:
        scratch = Path(name)
        widget, notes = _widget(request, report, verdict, test)
        files = collect_files(request.run, report, verdict, scratch, widget)
        files = with_card(files, request.run, report, repo_id, widget, scratch)
        if CARD not in {file.name for file in files}:
            notes = (*notes, "There is no card (README.md) in the run's folder, so none is published.")
        state.notes, state.files = notes, {file.name: file.sha256 for file in files}
        _say(f"{len(files)} files, {sum(file.size for file in files) / 1e6:.1f} MB, to {repo_id}")
        target = HubTarget(request, repo_id)
        state.private = target.prepare()
        published = target.publish(files)
        is_proven = state.proof is not None and state.proof["commit"] == published.commit
        state.status, state.commit, state.commit_url = "published", published.commit, published.url
        state.already_there, state.removed = published.already_there, published.removed
        state.pull_request = published.pull_request
        _say(f"{'there already' if published.already_there else 'one commit'}: {published.url}")
        state.write(request.run)
        if not is_proven:
            pictures, source = _proof_pictures(widget, test, scratch)
            state.proof = prove(
                repo_id, published.commit, files, request.run / "model", pictures, source, request.token
            )
        state.status = "proven"
    if request.tag:
        target.tag(request.tag, published.commit)
        state.tag = request.tag
    if request.collection:
        state.collection = target.collect(request.collection, state.private)
    state.status = "done"


def _widget(
    request: PushRequest, report: Mapping[str, Any], verdict: LicenseVerdict | None, test: datasets.Dataset | None
) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the pictures that go along, and what there is to say about it."""
    if not request.widget_images:
        return [], ("No test pictures go along, as asked.",)
    allowed, why = may_travel(verdict)
    if not allowed:
        return [], (f"No test pictures go along: {why}.",)
    pictures = stored_pictures(request.run)
    if not pictures:
        try:
            split = test if test is not None else reload_test_split(report)
            pictures = choose_pictures(split, request.run / "widget")
        except UserError as error:
            return [], (f"No test pictures go along: {error.given}",)
    return pictures, (f"{len(pictures)} test pictures go along: {why}; --no_widget_images leaves them out.",)


def _proof_pictures(widget: Sequence[Path], test: datasets.Dataset | None, scratch: Path) -> tuple[list[Path], str]:
    if widget:
        return list(widget), "the test pictures that go along"
    if test is not None:
        return choose_pictures(test, scratch / "proof"), "test pictures that do not go along"
    return [], ""


def _say(text: str) -> None:
    print(f"  {text}", flush=True)
