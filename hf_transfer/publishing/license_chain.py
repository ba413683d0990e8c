"""The works that a fine-tuned model is made from: the checkpoint, its bases, and the data set.

Knows how `base_model` is followed, how a model that this package trained leads to what it was made from, and where to
stop. Does not judge.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_transfer.data import digits
from hf_transfer.data.archives import is_archive
from hf_transfer.data.loading import no_such_dataset
from hf_transfer.data.tables import is_table
from hf_transfer.errors import UserError
from hf_transfer.models.source import check_hub_id
from hf_transfer.publishing.license_places import local_folder_of, read_hub_work
from hf_transfer.publishing.license_sources import Work, describe
from hf_transfer.publishing.license_table import OWN
from hf_transfer.publishing.license_verdict import LicenseStatement, LicenseVerdict, Override

MOST_WORKS = 30
DEEPEST = 10
# The scans are the test part of the UCI archive's data set 80; scikit-learn, which brings them, is under BSD-3-Clause.
DIGITS = LicenseStatement(
    "package",
    "cc-by-4.0",
    "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
)


Run = tuple[Path, dict[str, Any]]
"""A `run.json` and what it holds."""


class Chain:
    """The works in the order in which they were found, what was noticed, and overrides of earlier runs."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.notes: list[str] = []
        self.overrides: list[Override] = []

    def add_model(self, model: str, revision: str | None) -> None:
        """Adds a checkpoint and everything that it was made from."""
        waiting: list[tuple[str, str | None, str, int, tuple[str, ...]]] = [(model, revision, "model", 0, ())]
        while waiting:
            name, commit, role, depth, path = waiting.pop(0)
            if name in path:
                self.notes.append(f"base_model goes round in a circle: {' -> '.join((*path, name))}.")
                continue
            if role == "base model" and any(work.work == name and work.role != "dataset" for work in self.works):
                continue
            if depth > DEEPEST or len(self.works) >= MOST_WORKS:
                self._add(Work(name, role, commit, problem=f"the chain is longer than {DEEPEST} bases deep, not read"))
                self.notes.append(f"The chain of bases is long; {name} and what is behind it were not read.")
                break
            work, run = self._read_model(name, commit, role)
            self._add(work)
            if run is not None:
                self._add_run(*run)
            waiting += [(base, None, "base model", depth + 1, (*path, name)) for base in work.bases]

    def add_dataset(self, dataset: str, revision: str | None, stated: str | None) -> None:
        """Adds the data set, with what the user states about it."""
        work = self._read_dataset(dataset, revision)
        if stated is not None:
            said = LicenseStatement("user", stated, "--data_license")
            work = replace(work, statements=(*work.statements, said))
        self._add(work)

    def _add(self, work: Work) -> None:
        """Adds a work, or what else is said about one that is there already."""
        for number, known in enumerate(self.works):
            if (work.work, work.role, work.revision) == (known.work, known.role, known.revision):
                statements = tuple(dict.fromkeys((*known.statements, *work.statements)))
                self.works[number] = replace(known, statements=statements)
                return
        self.works.append(work)
        self.notes += work.notes
        if work.trained_on:
            self.notes.append(
                f"{work.work} was trained on {', '.join(work.trained_on)}, as its card says; the licences of its data "
                "are its publisher's matter and were not read."
            )

    def _read_model(self, name: str, revision: str | None, role: str) -> tuple[Work, Run | None]:
        folder = local_folder_of(name, role) if role == "model" else None
        if folder is None:
            if role == "model":
                check_hub_id(name)
            return read_hub_work(name, revision, role) if is_hub_id(name) else _no_hub_id(name, role), None
        if revision is not None:
            raise _no_revision("--model", name, revision)
        run = _run_of(folder)
        if run is None:
            return describe(name, role, folder), None
        said = LicenseStatement("run", OWN, f"{run[0]}: made by hf_transfer from the works below")
        return Work(name, role, None, (said,)), run

    def _add_run(self, path: Path, report: dict[str, Any]) -> None:
        """Adds what a model of ours was made from, as its run recorded it."""
        if report.get("license") is None:
            known = (("base model", report["checkpoint"]["source"]), ("dataset", report["data"]["name"]))
            for role, name in known:
                self._add(Work(name, role, None, problem=f"{path} is of before licences were recorded"))
            return
        verdict = LicenseVerdict.from_dict(report["license"])
        self.overrides += verdict.overrides
        overridden = {override.work for override in verdict.overrides}
        for link in verdict.links:
            role = "dataset" if link.role == "dataset" else "base model"
            statements = link.statements[:-1] if link.work in overridden else link.statements
            self._add(Work(link.work, role, link.revision, statements, files=link.files, problem=link.problem))

    def _read_dataset(self, dataset: str, revision: str | None) -> Work:
        path = Path(dataset).expanduser()
        is_here = path.exists() or dataset == digits.NAME
        if is_here and revision is not None:
            raise _no_revision("--dataset", dataset, revision)
        if dataset == digits.NAME and not path.exists():
            return Work(dataset, "dataset", None, (DIGITS,))
        if path.exists():
            return describe(dataset, "dataset", local_folder_of(dataset, "dataset"))
        if not is_hub_id(dataset) or is_table(path) or is_archive(path):
            raise no_such_dataset(dataset)
        return read_hub_work(dataset, revision, "dataset")


def is_hub_id(name: str) -> bool:
    """Returns whether a name can be that of a repository on the Hub."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _no_hub_id(name: str, role: str) -> Work:
    """Returns what is known of a base that is no Hub id: nothing, since a card cannot point at this disk."""
    return Work(name, role, None, problem="it is no Hub id")


def _no_revision(flag: str, name: str, revision: str) -> UserError:
    return UserError(
        f"{flag}_revision {revision} was given, but {name!r} is on this disk.",
        f"{flag}_revision with a Hub id",
        f"drop {flag}_revision",
    )


def _run_of(folder: Path) -> Run | None:
    """Returns the `run.json` of the run that made a model folder; `None` where no run of ours did."""
    for path, name in ((folder / "run.json", None), (folder.parent / "run.json", folder.name)):
        if not path.is_file():
            continue
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if name is None or report["outputs"]["model"] == name:
                return (path, report) if {"checkpoint", "data"} <= report.keys() else None
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a file of the same name by somebody else
    return None
