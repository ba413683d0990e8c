"""Evaluations against numbers worked out by hand, with the model reloaded from its files."""

import dataclasses
import json
import math
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from hf_transfer.data import picture_threads
from hf_transfer.errors import UserError
from hf_transfer.evaluation import inference
from hf_transfer.evaluation.classifier import load_classifier
from hf_transfer.evaluation.evaluator import evaluate_model, match_labels, predict_logits, wilson_interval
from hf_transfer.models.execution_order import input_shape
from tests.evaluation.conftest import COLOURS, LABELS, colour_split, plain, save_colour_model
from tests.models.families import build_tiny_checkpoint, build_tiny_model, build_tiny_timm_checkpoint, tiny_image
from tests.training.test_prefix_cut import BUILDABLE

# What is shown, and what the data set claims it to be: 3 of 5 are right, no blue is claimed.
SHOWN = ("red", "red", "green", "blue", "red")
CLAIMED = ("red", "red", "green", "green", "green")


def test_every_number_by_hand(colour_model: Path, tmp_path: Path):
    evaluation = evaluate_model(colour_model, colour_split(tmp_path, SHOWN, CLAIMED), "test", LABELS)
    assert evaluation.split == "test"
    assert evaluation.num_images == 5
    # Rows true, columns predicted: blue, green, red.
    assert evaluation.confusion_matrix == ((0, 0, 0), (1, 1, 1), (0, 0, 2))
    blue, green, red = evaluation.per_class
    assert (blue.label, blue.count, blue.precision, blue.recall, blue.f1) == ("blue", 0, 0.0, None, 0.0)
    assert (green.label, green.count, green.precision) == ("green", 3, 1.0)
    assert (green.recall, green.f1) == (pytest.approx(1 / 3), pytest.approx(2 / 4))
    assert (red.label, red.count, red.precision, red.recall) == ("red", 2, pytest.approx(2 / 3), 1.0)
    assert red.f1 == pytest.approx(4 / 5)
    right = math.log(1 + 2 * math.exp(-10))
    assert evaluation.metrics == {
        "loss": pytest.approx((3 * right + 2 * (10 + right)) / 5, abs=1e-4),
        "accuracy": pytest.approx(3 / 5),
        "balanced_accuracy": pytest.approx((1 / 3 + 1) / 2),
        "macro_f1": pytest.approx((0 + 2 / 4 + 4 / 5) / 3),
    }
    assert evaluation.accuracy_interval == wilson_interval(3, 5)
    assert evaluation.seconds > 0


def test_an_evaluation_is_plain_numbers(colour_model: Path, tmp_path: Path):
    evaluation = evaluate_model(colour_model, colour_split(tmp_path, SHOWN, CLAIMED), "test", LABELS)
    as_dict = dataclasses.asdict(evaluation)
    assert json.loads(json.dumps(as_dict, allow_nan=False))["num_images"] == 5
    assert {type(value) for value in as_dict["metrics"].values()} == {float}


def test_a_class_that_occurs_nowhere_has_no_numbers(colour_model: Path, tmp_path: Path):
    split = colour_split(tmp_path, ("red", "green"), ("red", "green"))
    blue = evaluate_model(colour_model, split, "test", LABELS).per_class[0]
    numbers = ("precision", "recall", "f1", "recall_interval")
    assert dataclasses.asdict(blue) == {"label": "blue", "count": 0, **dict.fromkeys(numbers)}


def test_what_a_card_needs_besides_is_measured(colour_model: Path, tmp_path: Path):
    split = colour_split(tmp_path, SHOWN, CLAIMED)
    evaluation = evaluate_model(colour_model, split, "test", LABELS, train_counts=(1, 1, 5))
    assert evaluation.majority is not None
    assert (evaluation.majority.label, evaluation.majority.metrics["accuracy"]) == ("red", pytest.approx(2 / 5))
    confusions = [(one.label, one.predicted, one.count) for one in evaluation.top_confusions]
    assert confusions == [("green", "blue", 1), ("green", "red", 1)]
    # Every answer has the probability e^10 / (e^10 + 2), and 3 of 5 are right.
    confidence = math.exp(10) / (math.exp(10) + 2)
    assert evaluation.calibration is not None
    assert evaluation.calibration.mean_confidence == pytest.approx(confidence, abs=1e-4)
    assert evaluation.calibration.expected_error == pytest.approx(confidence - 3 / 5, abs=1e-4)
    assert evaluation.per_class[1].recall_interval == wilson_interval(1, 3)


def test_labels_are_matched_by_name_whatever_their_order(tmp_path: Path):
    split = colour_split(tmp_path, SHOWN, CLAIMED)
    folders = [
        save_colour_model(tmp_path / "-".join(order), order)
        for order in (("red", "green", "blue"), LABELS, ("green", "blue", "red"))
    ]
    found = [dataclasses.replace(evaluate_model(folder, split, "test", LABELS), seconds=0.0) for folder in folders]
    assert found[0].confusion_matrix == found[1].confusion_matrix == found[2].confusion_matrix
    assert found[0].metrics == pytest.approx(found[1].metrics, abs=1e-5)
    assert found[0].metrics["accuracy"] == pytest.approx(0.6)


def test_a_model_that_knows_more_labels_may_answer_with_them(tmp_path: Path):
    # What the data set calls green comes last in the model, and `olive` and `mauve` are not in the data set.
    model = save_colour_model(tmp_path / "model", ("olive", "blue", "mauve", "red", "green"))
    evaluation = evaluate_model(model, colour_split(tmp_path, SHOWN, CLAIMED), "test", LABELS)
    assert [result.label for result in evaluation.per_class] == ["blue", "green", "red", "olive", "mauve"]
    assert evaluation.metrics["accuracy"] == pytest.approx(0.6)
    assert evaluation.confusion_matrix[1] == (1, 1, 1, 0, 0)


def test_a_label_that_the_model_does_not_know_is_named(colour_model: Path, tmp_path: Path):
    split = colour_split(tmp_path, ("red",), ("red",))
    with pytest.raises(UserError) as caught:
        evaluate_model(colour_model, split, "test", ("blue", "crimson", "red"))
    assert "does not know the label 'crimson'" in str(caught.value)
    assert "'green', 'red', 'blue'" in str(caught.value)


def test_match_labels_puts_the_others_last():
    assert match_labels(["d", "a", "c", "b"], ["a", "b"], "m") == [1, 3, 0, 2]


def test_a_label_that_the_model_has_twice_is_refused_only_if_it_is_asked_for():
    assert match_labels(["crane", "tench", "crane"], ["tench"], "m") == [1, 0, 2]
    with pytest.raises(UserError, match="two labels called 'crane'"):
        match_labels(["crane", "tench", "crane"], ["tench", "crane"], "m")


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # From the closed form (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with z = 1.959964.
    [(8, 10, 0.49016, 0.94331), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (50, 100, 0.40383, 0.59617)],
)
def test_wilson_interval(correct: int, total: int, low: float, high: float):
    z, share = 1.959963984540054, correct / total
    centre, spread = share + z * z / (2 * total), z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    by_hand = [(centre + sign * spread) / (1 + z * z / total) for sign in (-1, 1)]
    assert wilson_interval(correct, total) == pytest.approx(by_hand, abs=1e-9)
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("model_type", ["vit", "resnet"])
def test_logits_are_those_of_the_plain_model_for_any_batch_size_and_workers(tmp_path: Path, model_type: str):
    torch.manual_seed(1)
    folder = build_tiny_checkpoint(tmp_path, model_type)
    pictures = [tiny_image(seed) for seed in range(7)]
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        plainly = [model(**processor(images=picture, return_tensors="pt")).logits[0].numpy() for picture in pictures]
    loaded = load_classifier(folder)
    for batch_size, workers in ((1, 0), (3, 0), (7, 0), (3, 2)):
        found = predict_logits(
            loaded.model, loaded.image_processor, pictures, batch_size=batch_size, num_workers=workers, device="cpu"
        )
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.stack(plainly), atol=1e-6)


@pytest.mark.parametrize(("model_type", "channels_last"), [("resnet", True), ("vit", False)])
def test_pixels_are_laid_out_as_suits_the_network_and_its_own_layout_stays(
    tmp_path: Path, model_type: str, channels_last: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inference, "lanes_on", lambda device: 1)
    loaded = load_classifier(build_tiny_checkpoint(tmp_path, model_type))
    seen: list[bool] = []
    loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(
            kwargs["pixel_values"].is_contiguous(memory_format=torch.channels_last)
        ),
        with_kwargs=True,
    )
    predict_logits(loaded.model, loaded.image_processor, [tiny_image()] * 3, batch_size=3, device="cpu")
    assert seen == [channels_last]
    assert all(parameter.is_contiguous() for parameter in loaded.model.parameters())


def test_timm_models_are_measured_too(tmp_path: Path):
    torch.manual_seed(1)
    folder = build_tiny_timm_checkpoint(tmp_path / "timm", "test_vit", 3)
    loaded = load_classifier(folder)
    split = colour_split(tmp_path, SHOWN, CLAIMED).cast_column("label", _class_label(loaded.label_names))
    evaluation = evaluate_model(folder, split, "test", loaded.label_names)
    assert [result.label for result in evaluation.per_class] == list(loaded.label_names)
    assert evaluation.num_images == 5


def test_an_unreadable_picture_is_named_without_a_traceback(colour_model: Path, tmp_path: Path):
    split = colour_split(tmp_path, SHOWN, CLAIMED)
    (tmp_path / "3.png").write_bytes(b"no picture")
    loaded = load_classifier(colour_model)
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"3\.png") as caught:
            predict_logits(loaded.model, loaded.image_processor, split, batch_size=2, num_workers=workers)
        assert "Traceback" not in str(caught.value)


def test_pictures_are_opened_by_all_cores_where_no_worker_does(colour_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture_threads, "available_cores", lambda: 2)
    # A picture is opened only once another one is being opened too: one thread alone would never get past the first.
    another, open_picture = threading.Barrier(2, timeout=60), inference.to_rgb

    def opened_beside_another(picture: object) -> object:
        another.wait()
        return open_picture(picture)

    monkeypatch.setattr(inference, "to_rgb", opened_beside_another)
    loaded, shown = load_classifier(colour_model), [plain(name) for name in (*COLOURS, "red")]
    found = predict_logits(loaded.model, loaded.image_processor, shown, batch_size=4, num_workers=0, device="cpu")
    np.testing.assert_allclose(found, 10 * np.eye(3)[[1, 0, 2, 1]], atol=1e-3)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("model_type", ["vit", "resnet"])
def test_batches_side_by_side_are_answered_in_order(tmp_path: Path, model_type: str):
    torch.manual_seed(1)
    loaded = load_classifier(build_tiny_checkpoint(tmp_path, model_type))
    pictures = [tiny_image(seed) for seed in range(19)]
    alone = predict_logits(loaded.model, loaded.image_processor, pictures, batch_size=1, device="cpu")
    assert len(np.unique(alone, axis=0)) == len(pictures)
    sizes, threads = [], []
    loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    loaded.model.register_forward_hook(lambda *_: threads.append((threading.get_ident(), torch.get_num_threads())))
    # The second in two stretches.
    for batch_size, expected in ((4, [2] * 9 + [1]), (3, [1] * 19), (40, [19]), (24, [7, 12])):
        found = predict_logits(loaded.model, loaded.image_processor, pictures, batch_size=batch_size, device="cpu")
        np.testing.assert_allclose(found, alone, atol=1e-5)
        assert sorted(sizes) == sorted(expected)
        here = [ident for ident, _ in threads if ident == threading.get_ident()]
        assert len(here) == (len(threads) if expected == [19] else 0)
        assert {count for _, count in threads} == {4 if expected == [19] else 2}
        assert torch.get_num_threads() == 4
        sizes.clear()
        threads.clear()


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("family", BUILDABLE)
def test_any_network_answers_two_threads_as_it_does_one(family: str):
    torch.manual_seed(0)
    model = build_tiny_model(family).eval()
    pictures = list(torch.randn(24, *input_shape(model)))
    with torch.no_grad():
        alone = torch.cat([model(pixel_values=picture[None]).logits for picture in pictures]).numpy()
    found = predict_logits(model, ViTImageProcessor(), pictures, batch_size=4, device="cpu")
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("four_threads")
def test_two_batches_are_under_way_at_once(colour_model: Path):
    meeting, loaded = threading.Barrier(2, timeout=60), load_classifier(colour_model)

    def meet(*_: object) -> None:
        meeting.wait()

    loaded.model.register_forward_hook(meet)
    shown = [plain(name) for name in (*COLOURS, "red")]
    found = predict_logits(loaded.model, loaded.image_processor, shown, batch_size=2, device="cpu")
    np.testing.assert_allclose(found, 10 * np.eye(3)[[1, 0, 2, 1]], atol=1e-3)


@pytest.mark.usefixtures("four_threads")
def test_side_by_side_a_bad_picture_has_its_place_and_precision_is_full(colour_model: Path):
    loaded, seen = load_classifier(colour_model), []
    loaded.model.register_forward_hook(lambda *_: seen.append(torch.backends.fp32_precision))
    before = torch.backends.fp32_precision
    shown = [plain("red"), b"no picture", plain("green"), b"none either", plain("blue")]
    answers = inference.stream_logits(loaded.model, loaded.image_processor, shown, batch_size=2, device="cpu")
    found = []
    for answer in answers:
        assert torch.backends.fp32_precision == before
        found.append(answer)
    assert [isinstance(answer, UserError) for answer in found] == [False, True, False, True, False]
    np.testing.assert_allclose(np.stack(found[::2]), 10 * np.eye(3)[[1, 0, 2]], atol=1e-3)
    assert seen == ["ieee"] * 3


def test_what_the_processor_made_before_is_taken_where_it_is_the_same(colour_model: Path, tmp_path: Path):
    split, asked = colour_split(tmp_path, SHOWN, CLAIMED), []
    green = load_classifier(colour_model).image_processor(images=plain("green"), return_tensors="pt")["pixel_values"]

    def made_before(image_processor: object) -> list[torch.Tensor] | None:
        asked.append(image_processor)
        return [green[0]] * 5 if len(asked) == 1 else None

    kept, anew = (evaluate_model(colour_model, split, "test", LABELS, processed=made_before) for _ in range(2))
    assert kept.metrics["accuracy"] == CLAIMED.count("green") / 5
    assert anew == dataclasses.replace(evaluate_model(colour_model, split, "test", LABELS), seconds=anew.seconds)
    assert [type(processor) for processor in asked] == [type(load_classifier(colour_model).image_processor)] * 2


def test_random_numbers_and_precision_are_left_alone(colour_model: Path):
    loaded = load_classifier(colour_model)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.backends.fp32_precision
    predict_logits(loaded.model, loaded.image_processor, [plain("red")] * 3, batch_size=2, device="cpu")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert torch.backends.fp32_precision == before[3]


@pytest.fixture(params=["all", "convolutions alone"])
def tf32(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What training on a GPU, or `torch.backends.cudnn.flags`, leaves behind."""
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    if request.param == "convolutions alone":
        convolutions.fp32_precision = "tf32"
    monkeypatch.setattr(torch.backends, "fp32_precision", "tf32")
    yield
    convolutions.fp32_precision = before


def test_nothing_is_computed_in_tf32(colour_model: Path, tf32: None):
    loaded = load_classifier(colour_model)
    seen = []
    loaded.model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    predict_logits(loaded.model, loaded.image_processor, [plain("red")], device="cpu")
    assert seen == ["ieee"]
    assert torch.backends.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_dropout_is_off_whatever_mode_the_model_came_in(colour_model: Path):
    loaded = load_classifier(colour_model)
    loaded.model.train()
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    found = predict_logits(loaded.model, loaded.image_processor, [plain(name) for name in COLOURS], device="cpu")
    np.testing.assert_allclose(found, 10 * np.eye(3)[[1, 0, 2]], atol=1e-3)


def test_too_little_memory_says_what_to_type(colour_model: Path, monkeypatch: pytest.MonkeyPatch):
    loaded = load_classifier(colour_model)

    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ViTForImageClassification, "forward", refuse)
    # As on the devices that raise this.
    monkeypatch.setattr(inference, "lanes_on", lambda device: 1)
    with pytest.raises(UserError, match="--batch_size 2"):
        predict_logits(loaded.model, loaded.image_processor, [plain("red")] * 4, batch_size=4, device="cpu")


def test_scores_that_are_no_numbers_are_refused(colour_model: Path, tmp_path: Path):
    folder = shutil.copytree(colour_model, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] = torch.full_like(weights["classifier.bias"], math.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not finite"):
        evaluate_model(folder, colour_split(tmp_path, ("red",), ("red",)), "test", LABELS)


def test_a_backbone_without_a_head_is_no_classifier(colour_model: Path, tmp_path: Path):
    ViTModel.from_pretrained(colour_model, add_pooling_layer=False).save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(colour_model).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no finished classifier: its files lack classifier"):
        load_classifier(tmp_path)


def test_a_head_of_another_size_is_no_classifier(colour_model: Path, tmp_path: Path):
    folder = shutil.copytree(colour_model, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = torch.zeros(7, 16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack classifier\.weight .* another shape"):
        load_classifier(folder)


def test_a_multi_label_model_is_refused(colour_model: Path, tmp_path: Path):
    folder = shutil.copytree(colour_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    with pytest.raises(UserError, match="trained for multi label classification"):
        load_classifier(folder)


def test_workers_only_where_they_do_not_take_the_cores_of_the_model():
    assert inference._default_workers(torch.device("cpu")) == 0
    assert 1 <= inference._default_workers(torch.device("cuda")) <= 8


def _class_label(names: tuple[str, ...]) -> datasets.ClassLabel:
    return datasets.ClassLabel(names=list(names))
