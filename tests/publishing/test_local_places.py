"""Reports without folders of this computer: what goes, and what must stay as it is."""

import re
from pathlib import Path

import pytest

from hf_transfer.publishing.local_places import without_local_places


def clean(value: object, **others: object) -> object:
    return without_local_places({"value": value, **others}, Path("/home/me/runs/first run"))["value"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/pictures", "pictures"),
        ("/home/me/my pictures", "my pictures"),
        ("/home/me/runs/first run", "first run"),
        ("written to /home/me/runs/first run/model/config.json.", "written to config.json."),
        ("~/data/flowers", "flowers"),
        ("see '/data/a/b.png' and /data/c/d.png", "see 'b.png' and d.png"),
        ("--dataset=/data/a/b", "--dataset=b"),
        ("C:\\Users\\me\\pictures", "pictures"),
        ("in C:\\Users\\me\\pictures now", "in pictures now"),
        ("hf_abcdefghijklmnop", "***"),
    ],
)
def test_what_goes(text: str, expected: str):
    assert clean(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/a/b/c",
        "owner/name",
        "runs/quickstart",
        "accuracy/head and loss/head",
        "2 / 3",
        "3/4 of the pictures",
        "hf_transfer",
        "Apache-2.0",
        "layers.0.weight",
        "~ 3 s",
        "a: b/c",
    ],
)
def test_what_stays(text: str):
    assert clean(text) == text


def test_a_known_folder_is_found_in_sentences_and_keys():
    report = {"dataset": "/data/my pictures", "notes": ["in /data/my pictures/a.png", "and /data/my pictures too"]}
    cleaned = without_local_places({**report, "by file": {"/data/my pictures/a.png": 1}}, Path("/tmp/run"))
    assert cleaned["notes"] == ["in a.png", "and my pictures too"]
    assert cleaned["by file"] == {"a.png": 1}


def test_numbers_and_nothing_stay():
    value = {"a": [1, 2.5, None, True], "b": ()}
    assert clean(value) == {"a": [1, 2.5, None, True], "b": []}
    assert not re.search("home|tmp", str(clean(value)))
