"""A few of the test pictures, as they may be shown beside a published model.

Knows when pictures may leave this machine (the licence of the data says so) and how they are written: re-encoded, so
that nothing but pixels goes along. Does not publish them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.images import to_rgb
from hf_transfer.data.loading import load_image_data
from hf_transfer.errors import UserError
from hf_transfer.publishing.license_judgement import grade_for_publishing
from hf_transfer.publishing.license_table import facts_of
from hf_transfer.publishing.license_verdict import LicenseVerdict
from hf_transfer.publishing.publish_folder import WIDGET

PICTURES = 3
_LONGEST_SIDE = 512


def may_travel(verdict: LicenseVerdict | None) -> tuple[bool, str]:
    """Tells whether pictures of the data set may be published, and why or why not.

    Only what is surely allowed is: an unknown licence, one that sources disagree about, one with conditions that a
    person must read, and data whose licence was only reported are not.
    """
    links = [link for link in verdict.links if link.role == "dataset"] if verdict is not None else []
    if verdict is None or not links:
        return False, "nothing is known about the licence of the data"
    if verdict.data_report_only:
        return False, "the licence of the data was only reported"
    for link in links:
        facts = facts_of(link.license)
        if link.license is None or not facts.is_known:
            return False, "the licence of the data is not known"
        if link.conflict or link.problem is not None:
            return False, "what is known about the licence of the data is not certain"
        if grade_for_publishing(facts).exit_code or facts.condition:
            return False, f"the licence of the data ({link.license}) does not surely allow it"
    return True, f"the licence of the data allows it ({links[0].license})"


def stored_pictures(run: Path) -> list[Path]:
    """Returns the pictures that an earlier push chose."""
    return sorted((run / WIDGET).glob("example-*.jpg"))


def choose_pictures(test: datasets.Dataset, folder: Path) -> list[Path]:
    """Writes pictures of as many classes as possible, always the same ones for the same data.

    Args:
        test (`datasets.Dataset`):
            The test split, with the columns `image` and `label`.
        folder (`Path`):
            Where to write; made if needed.

    Returns:
        `list[Path]`: at most three.

    Raises:
        UserError: where one of them cannot be read.
    """
    labels = list(test["label"])
    firsts = [labels.index(label) for label in sorted(set(labels))]
    others = [row for row in range(len(labels)) if row not in set(firsts)][:PICTURES]
    # All are read before the first is written: one that cannot be read leaves none behind.
    pictures = [to_rgb(test[row]["image"]) for row in [*firsts, *others][:PICTURES]]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"example-{number}.jpg" for number in range(1, len(pictures) + 1)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        picture.save(path, quality=92, exif=b"")
    return paths


def reload_test_split(report: Mapping[str, Any]) -> datasets.Dataset:
    """Reads the test split of a run again.

    Raises:
        UserError: where the data are not here any more, or are not what they were.
    """
    config = report["config"]
    fields = {name: value for name, value in config.items() if name in FinetuneConfig.__dataclass_fields__}
    data = load_image_data(FinetuneConfig(**{**fields, "training": {}, "command": ()}))
    if data.fingerprint != report.get("data", {}).get("fingerprint"):
        raise UserError("The data set is not what it was when the model was trained.")
    return data.test
