"""`--push_to_hub` in a run: asked before training, done after everything is saved, and never the end of a run.

Knows which training arguments are about the push and what they mean here. Trainer's own push is never used: it would
publish pickles, and a card with numbers that were not measured on the published weights. Does not know how a push is
done (`hf_transfer.publishing.push`).
"""

import os
import sys
import traceback
from pathlib import Path

import datasets

from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError
from hf_transfer.publishing.hub_target import full_repo_id
from hf_transfer.publishing.license_verdict import LicenseVerdict
from hf_transfer.publishing.push import push_run
from hf_transfer.publishing.push_access import check_logged_in, check_write_access
from hf_transfer.publishing.push_command import format_state
from hf_transfer.publishing.push_permission import check_publishing
from hf_transfer.publishing.push_request import PushRequest


def wants_push(config: FinetuneConfig) -> bool:
    """Tells whether the run is to be pushed when it is finished."""
    return bool(config.training.get("push_to_hub"))


def check_push(config: FinetuneConfig, folder: Path, verdict: LicenseVerdict) -> None:
    """Makes sure, before any compute is spent, that the push will be let in.

    Only the main process of a distributed run asks the Hub; the others end with it.

    Raises:
        PublishingRefusal: where the licences do not allow publishing.
        UserError: without write access, or with arguments that mean nothing here.
    """
    if not wants_push(config):
        return
    _refuse_other_strategies(config)
    try:
        check_publishing(verdict)
        if os.environ.get("RANK", "0") == "0":
            request = _request(config, folder)
            check_logged_in(request.token)
            check_write_access(full_repo_id(request.repo_id, request.token), request.token)
    except UserError as error:
        error.hint = f"{error.hint or 'run again later'}; or drop --push_to_hub, and push when the run is finished"
        raise


def push_after_training(config: FinetuneConfig, folder: Path, test: datasets.Dataset) -> None:
    """Pushes a finished run; whatever fails, the run stays finished and the message says what is left to type."""
    request = _request(config, folder)
    print(f"\nPushing to {request.repo_id}:", flush=True)
    try:
        state = push_run(request, test)
    except UserError as error:
        _not_pushed(request, error.given)
    except Exception as error:  # hours of training are worth more than how this ends
        if config.debug:
            traceback.print_exc()
        _not_pushed(request, f"{type(error).__name__}, which nobody expected; --debug shows where.")
    else:
        print(format_state(state), flush=True)


def _not_pushed(request: PushRequest, why: str) -> None:
    print(
        f"\nNot pushed: {why}\nThe run is complete in {request.run}. This finishes the push: {request.command}",
        file=sys.stderr,
        flush=True,
    )


def _request(config: FinetuneConfig, folder: Path) -> PushRequest:
    given = config.training
    return PushRequest(
        run=folder,
        repo_id=str(given.get("hub_model_id") or folder.absolute().name),
        private=given.get("hub_private_repo"),
        branch=given.get("hub_revision") or None,
        widget_images=config.widget_images,
        token=given.get("hub_token") or None,
    )


def _refuse_other_strategies(config: FinetuneConfig) -> None:
    strategy = str(config.training.get("hub_strategy", "end"))
    if "checkpoint" in strategy:
        raise UserError(
            f"--hub_strategy {strategy}: checkpoints are never published, they hold optimizer states and pickles.",
            "one push, when the run is finished",
            "drop --hub_strategy",
        )
    if config.training.get("hub_always_push"):
        raise UserError(
            "--hub_always_push: nothing is pushed before the run is finished.", hint="drop --hub_always_push"
        )
