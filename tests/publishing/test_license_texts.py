"""Licence texts are recognised, and mentions of licences are not."""

from importlib import resources

import pytest

from hf_transfer.publishing.license_texts import is_recognisable, recognise

PACKAGED = sorted((resources.files("hf_transfer.publishing") / "texts").iterdir(), key=lambda path: path.name)
CC_BY_NC = """Attribution-NonCommercial 4.0 International
Creative Commons Corporation ("Creative Commons") is not a law firm and does not provide legal services.
"""


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.name)
def test_packaged_texts_are_what_they_are_called(path):
    assert recognise(path.read_text(encoding="utf-8")) == (path.name.removesuffix(".txt"),)


def test_layout_and_comment_signs_do_not_matter():
    text = (resources.files("hf_transfer.publishing") / "texts" / "apache-2.0.txt").read_text(encoding="utf-8")
    assert recognise("\n".join(f"# {line.upper()}" for line in text.splitlines())) == ("apache-2.0",)
    assert recognise(text.replace(" ", "  ").replace("\n", "\r\n")) == ("apache-2.0",)


def test_two_texts_in_one_file():
    mit = (resources.files("hf_transfer.publishing") / "texts" / "mit.txt").read_text(encoding="utf-8")
    assert recognise(f"Code:\n{mit}\nWeights:\n{CC_BY_NC}") == ("cc-by-nc-4.0", "mit")


@pytest.mark.parametrize(
    ("title", "license_id"),
    [
        ("Attribution 4.0 International", "cc-by-4.0"),
        ("Attribution-ShareAlike 4.0 International", "cc-by-sa-4.0"),
        ("Attribution-NoDerivatives 4.0 International", "cc-by-nd-4.0"),
        ("Attribution-NonCommercial-NoDerivs 3.0 Unported", "cc-by-nc-nd-3.0"),
        ("Attribution-NonCommercial-ShareAlike 2.0 Generic", "cc-by-nc-sa-2.0"),
    ],
)
def test_creative_commons_by_title(title: str, license_id: str):
    assert recognise(f"Creative Commons Legal Code\n\n{title}\n") == (license_id,)
    assert recognise(title) == ()


def test_the_advertising_clause_is_the_family():
    bsd = (resources.files("hf_transfer.publishing") / "texts" / "bsd-3-clause.txt").read_text(encoding="utf-8")
    assert recognise(f"{bsd}\nAll advertising materials mentioning features or use of this software") == ("bsd",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "All rights reserved.",
        "Unlike the MIT License or the Apache License, this one asks you to sing.",
        "You may not use this under the GNU General Public License.",
        "Free for research. Ask us about anything else.",
    ],
)
def test_mentions_are_not_recognised(text: str):
    assert recognise(text) == ()


def test_spdx_tags():
    assert recognise("// SPDX-License-Identifier: BSD-2-Clause") == ("bsd-2-clause",)


def test_what_can_be_recognised_is_known():
    assert is_recognisable("mit")
    assert is_recognisable("cc-by-nc-2.5")
    assert not is_recognisable("h-research")
