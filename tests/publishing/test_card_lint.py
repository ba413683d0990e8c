"""The lint of the card: each rule on a card that breaks it, and none on one that does not."""

import json
from pathlib import Path

import pytest

from hf_transfer.publishing.card import render_card
from hf_transfer.publishing.card_lint import lint_card
from tests.publishing.card_reports import folder_of, kept_report

PICTURE = "(confusion_matrix.png)"


@pytest.fixture(scope="module")
def card() -> str:
    return render_card(kept_report())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(kept_report(), tmp_path / "run")


def test_the_card_as_it_is_has_no_fault(card: str, folder: Path):
    assert lint_card(card, folder, kept_report()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("---\n", "--\n", "does not begin"),
        ("library_name: transformers", "library_name: [", "no YAML"),
        ("license: apache-2.0", "license: apache-2", "no licence 'apache-2'"),
        ("license: apache-2.0", "license: 7", "no licence"),
        ("license: apache-2.0", "license: own", "no licence"),
        ("license: apache-2.0", "license: [apache-2.0]", "no licence"),
        ("    dataset:\n", "    data:\n", "huggingface_hub"),
        (PICTURE, "(x/../confusion_matrix.png)", "which is not there"),
        ("license: apache-2.0", "license: other", "`other` without license_name and license_link"),
        ("license: apache-2.0", "license: apache-2.0\nlicense_link: TERMS", "'TERMS', which is not there"),
        ("license: apache-2.0\n", "license_name: mine\n", "no id"),
        ("value: 0.97026", "value: 0.97027", "is 0.97027"),
        ("value: 0.9702602230483272", "value: .nan", "no finite number"),
        ("value: 0.9702602230483272", "value: '0.97'", "no finite number: '0.97'"),
        ("split: validation", "split: dev", "validation accuracy is None in the card"),
        (PICTURE, "(confusion.png)", "confusion.png, which is not there"),
        (PICTURE, "(../confusion_matrix.png)", "which is not there"),
        (PICTURE, "(javascript:alert)", "javascript:alert"),
        (PICTURE, "(http://example.org/x.png)", "http://example.org"),
        ("![Reliability diagram of the test pictures: accuracy over confidence, and pictures in each bin]", "![]",
         "no text for those"),
        ("## Data\n", "## Data\n\nfrom /home/me/pictures/cats\n", "A folder of this computer"),
        ("## Data\n", "## Data\n\nfrom C:\\\\Users\\\\me\\\\cats\n", "A folder of this computer"),
        ("## Data\n", "## Data\n\nhf_abcdefghijklmnop\n", "token"),
        ("## Data\n", "## Data\n\n<b>bold</b>\n", "HTML"),
        ("## Data\n", "## Data\n\n<!-- x -->\n", "HTML"),
        ("## Data\n", "## Data\n\n## Injected\n", "none of ours: '## Injected'"),
        ("## Data\n", "## Data\n\n# Injected\n", "2 titles"),
        ("## Data\n", "## Data\n\nline\n---\n", "a rule or an underline"),
        ("## Data\n", "## Data\n\n\u202etxt\n", "U+202E"),
        ("## Data\n", "## Data\n\na\tb\n", "U+0009"),
        ("| 3 | 3 |", "| 3 | 3 | 3 |", "has 6 cells, its head 5"),
    ],
)  # fmt: skip
def test_each_fault_is_found(old: str, new: str, words: str, card: str, folder: Path):
    assert old in card
    problems = lint_card(card.replace(old, new, 1), folder, kept_report())
    assert any(words in problem for problem in problems), problems
    assert not [problem for problem in problems if "hf_abc" in problem or "/home/me" in problem]


def test_metadata_that_huggingface_hub_would_drop_are_found(card: str, folder: Path):
    changed = card.replace("model-index:\n- name:", "model-index:\n- title:", 1)
    assert any("huggingface_hub" in problem for problem in lint_card(changed, folder, kept_report()))


def test_metrics_that_are_missing_or_damaged_are_found(card: str, folder: Path):
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(metrics | {"extra": {"accuracy": 1.0}}), encoding="utf-8")
    assert lint_card(card, folder, kept_report()) == ["extra accuracy is None in the card and 1.0 in metrics.json."]
    path.write_text("{", encoding="utf-8")
    assert "damaged" in lint_card(card, folder, kept_report())[0]
    path.unlink()
    assert lint_card(card, folder, kept_report()) == ["metrics.json is missing, so no number can be compared."]
