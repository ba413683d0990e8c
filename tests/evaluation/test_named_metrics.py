"""Metrics that the user names: from the Hub, from a folder, and everything that can be wrong with them."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import evaluate
import huggingface_hub
import numpy as np
import pytest

from hf_transfer.errors import UserError
from hf_transfer.evaluation.metrics import ClassificationMetrics

MODULE = """
import datasets
import evaluate
from sklearn.metrics import f1_score


class Module(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="",
            citation="",
            inputs_description="",
            features=datasets.Features({name: datasets.Value("int32") for name in INPUTS}),
        )

    def _compute(self, SIGNATURE):
        return RESULT
"""


def module(result: str, inputs: tuple[str, ...] = ("predictions", "references"), options: str = "") -> str:
    """Returns the source of a metric."""
    signature = ", ".join(inputs) + options
    return MODULE.replace("INPUTS", repr(inputs)).replace("SIGNATURE", signature).replace("RESULT", result)


# As the Hub's `f1` is written: scikit-learn's function, with a default that fits two classes only.
F1 = module(
    '{"f1": f1_score(references, predictions, average=average, zero_division=zero_division)}',
    options=', pos_label=1, average="binary", zero_division="warn"',
)


def write_metric(folder: Path, source: str) -> Path:
    """Writes a metric module as `evaluate` wants it: `<name>/<name>.py`."""
    folder.mkdir(parents=True)
    (folder / f"{folder.name}.py").write_text(source, encoding="utf-8")
    return folder


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A folder that is served as the Hub's Spaces, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    root = tmp_path / "served"
    root.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/spaces/{{path}}/resolve/{{revision}}/{{name}}"
    monkeypatch.setattr(evaluate.config, "HUB_EVALUATE_URL", url)
    # evaluate would tell S3 that a metric was loaded.
    monkeypatch.setattr(evaluate.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    yield root, asked
    server.shutdown()
    server.server_close()
    thread.join()


def serve_metric(root: Path, repo_id: str) -> None:
    folder = root / "spaces" / repo_id / "resolve" / "main"
    folder.mkdir(parents=True)
    (folder / f"{repo_id.split('/')[-1]}.py").write_text(F1, encoding="utf-8")


# true 0 0 1 2, predicted 0 1 1 1: F1 of 0 is 2/3, of 1 is 2/4, of 2 is 0.
LOGITS, TRUE, MACRO = np.eye(3)[[0, 1, 1, 1]], np.array([0, 0, 1, 2]), (2 / 3 + 2 / 4 + 0) / 3


def test_metric_from_a_folder(tmp_path: Path):
    metrics = ClassificationMetrics(["a", "b", "c"], [str(write_metric(tmp_path / "my_f1", F1))])
    found = metrics.compute(LOGITS, TRUE)
    assert found["f1"] == pytest.approx(MACRO)
    assert type(found["f1"]) is float
    assert found["f1"] == pytest.approx(found["macro_f1"])


@pytest.mark.parametrize("repo_id", ["evaluate-metric/my_hub_f1", "someone/their_f1"])
def test_metric_from_the_hub(space: tuple[Path, list[str]], repo_id: str):
    root, asked = space
    serve_metric(root, repo_id)
    name = repo_id.removeprefix("evaluate-metric/")
    found = ClassificationMetrics(["a", "b", "c"], [name]).compute(LOGITS, TRUE)
    assert found["f1"] == pytest.approx(MACRO)
    assert any(repo_id in path for path in asked)


def test_two_classes_are_averaged_too(tmp_path: Path):
    # With average="binary" only the second label, by alphabet, would be scored: 2/3.
    metrics = ClassificationMetrics(["a", "b"], [str(write_metric(tmp_path / "two_f1", F1))])
    found = metrics.compute(np.eye(2)[[0, 0, 0, 1]], np.array([0, 0, 1, 1]))
    assert found["f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_an_unknown_metric_is_named_with_what_is_shipped(space: tuple[Path, list[str]]):
    with pytest.raises(UserError) as caught:
        ClassificationMetrics(["a", "b"], ["no_such_metric"])
    message = str(caught.value)
    assert "--metrics no_such_metric" in message
    assert "balanced_accuracy" in message
    assert "network" in message
    assert space[1], "the Hub was not even asked"


def test_hub_offline_is_heeded(space: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch):
    """Fails without `_offline_like_the_hub`: evaluate would ask the server, and get the metric."""
    serve_metric(space[0], "someone/offline_f1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        ClassificationMetrics(["a", "b"], ["someone/offline_f1"])
    assert space[1] == []
    assert evaluate.config.HF_EVALUATE_OFFLINE is False


def test_a_metric_that_was_fetched_once_works_offline(space: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch):
    serve_metric(space[0], "someone/cached_f1")
    ClassificationMetrics(["a", "b"], ["someone/cached_f1"])
    space[1].clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = ClassificationMetrics(["a", "b", "c"], ["someone/cached_f1"]).compute(LOGITS, TRUE)
    assert found["f1"] == pytest.approx(MACRO)
    assert space[1] == []


def test_a_shipped_metric_may_be_named_and_needs_no_network(space: tuple[Path, list[str]]):
    found = ClassificationMetrics(["a", "b", "c"], ["accuracy", "macro_f1"]).compute(LOGITS, TRUE)
    assert set(found) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert space[1] == []


def test_top5_of_few_classes_is_refused():
    with pytest.raises(UserError, match="top5_accuracy: with 5 classes"):
        ClassificationMetrics(list("abcde"), ["top5_accuracy"])


def test_a_key_that_is_taken_gets_the_name_of_its_metric(tmp_path: Path):
    source = module('{"accuracy": 0.25, "loss": 1.0}')
    found = ClassificationMetrics(["a", "b"], [str(write_metric(tmp_path / "theirs", source))]).compute(
        np.eye(2), np.array([0, 1])
    )
    assert found["accuracy"] == 1.0
    assert found["theirs_accuracy"] == 0.25
    assert found["theirs_loss"] == 1.0
    assert "loss" not in found


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            module('{"roc": 1.0}', ("prediction_scores", "references")),
            "is computed from prediction_scores, references",
        ),
        (module('{"table": [1, 2]}'), "its 'table' is not one number but list"),
        (module('{"name": "good"}'), "its 'name' is not one number but str"),
        (module("0.5"), "returns float"),
        (module("1 / 0"), "cannot be computed from label numbers: division by zero"),
        ("import no_such_package_anywhere\n" + F1, "needs another package"),
        ("raise RuntimeError('broken at import')\n" + F1, "cannot be loaded: broken at import"),
        ("def broken(:\n", "cannot be loaded: invalid syntax"),
    ],
    ids=["features", "list", "text", "no-dict", "raises", "package", "import", "syntax"],
)
def test_a_metric_that_does_not_fit_fails_before_training(
    tmp_path: Path, request: pytest.FixtureRequest, source: str, complaint: str
):
    name = str(write_metric(tmp_path / f"misfit_{request.node.callspec.id.replace('-', '_')}", source))
    with pytest.raises(UserError) as caught:
        ClassificationMetrics(["a", "b", "c"], [name])
    assert complaint in str(caught.value)
    assert name in str(caught.value)


def test_a_cache_that_cannot_be_written_is_a_user_error(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(evaluate, "load", refuse)
    with pytest.raises(UserError, match="cannot write to its cache") as caught:
        ClassificationMetrics(["a", "b"])
    assert "HF_HOME" in str(caught.value)
