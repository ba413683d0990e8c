"""Who chooses where pictures are varied, and that nothing but the place comes of it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import EACH_VISIT, TrainingInput
from hf_transfer.data.drawn_pictures import DrawnPicture
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.transforms import POLICIES, build_eval_transform, build_train_transform
from hf_transfer.training import varied_on
from hf_transfer.training.checkpoints import seal_checkpoint, write_identity
from tests.data.photos import jpeg, split_of

PROCESSOR = transformers.ViTImageProcessor(size={"height": 32, "width": 32})


def some_input(decoded: str = "once", policy: str = "light") -> TrainingInput:
    split = split_of([jpeg(number) for number in range(5)])
    train = ImageClassificationDataset(split, build_train_transform(PROCESSOR, POLICIES[policy]), seed=3)
    validation = ImageClassificationDataset(split, build_eval_transform(PROCESSOR), seed=None)
    return TrainingInput(train, validation, decoded, "")


def some_args(device: str = "cuda", resume: str | None = None, workers: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        device=torch.device(device),
        process_index=0,
        resume_from_checkpoint=resume,
        train_batch_size=4,
        dataloader_num_workers=workers,
        dataloader_prefetch_factor=None,
        dataloader_pin_memory=False,
    )


def chosen(wish: str, args: SimpleNamespace, pictures: TrainingInput, policy: str = "light") -> TrainingInput:
    config = FinetuneConfig(model="m", dataset="d", augment_on=wish)  # type: ignore[arg-type]
    return varied_on.vary_where_faster(config, args, pictures, PROCESSOR, POLICIES[policy])  # type: ignore[arg-type]


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varied_on, "_measured", lambda *args: pytest.fail("measured, and need not be"))


@pytest.mark.parametrize(
    ("cpu", "device", "place"), [(0.002, 0.001, "device"), (0.001, 0.002, "cpu"), (0.001, 0.001, "cpu")]
)
def test_the_quicker_one_is_chosen_with_both_figures(cpu: float, device: float, place: str):
    varied = varied_on.faster({"cpu": cpu, "device": device})
    assert varied.place == place
    assert varied.seconds_per_picture == {"cpu": cpu, "device": device}
    assert f"{1000 * cpu:g} ms a picture on the cpu, {1000 * device:g} ms a picture on the device" in varied.reason


@pytest.mark.parametrize(("seconds", "place"), [(0.1, "device"), (0.3, "cpu")])
def test_an_accelerator_is_measured(seconds: float, place: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(varied_on, "_measured", lambda *args: {"cpu": 0.2, "device": seconds})
    pictures = chosen("auto", some_args(), some_input())
    assert pictures.varied.place == place
    assert (pictures.vary is not None) is (place == "device")
    assert isinstance(pictures.train[7]["pixel_values"], DrawnPicture if place == "device" else torch.Tensor)
    assert isinstance(pictures.validation[0]["pixel_values"], torch.Tensor)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("wish", "device", "decoded", "policy", "place", "reason"),
    [
        ("auto", "cpu", "once", "light", "cpu", "no other"),
        ("auto", "cuda", EACH_VISIT, "light", "cpu", "decoding"),
        ("auto", "cuda", "once", "strong", "cpu", "trivialaugment"),
        ("device", "cuda", "once", "strong", "cpu", "trivialaugment"),
        ("device", "cpu", "once", "none", "cpu", "not varied"),
        ("device", "cpu", EACH_VISIT, "light", "device", "as you asked"),
        ("cpu", "cuda", "once", "light", "cpu", "as you asked"),
    ],
)
def test_there_is_often_nothing_to_measure(wish: str, device: str, decoded: str, policy: str, place: str, reason: str):
    varied = chosen(wish, some_args(device), some_input(decoded, policy), policy).varied
    assert varied.place == place
    assert reason in varied.reason
    assert varied.seconds_per_picture is None


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("place", ["cpu", "device"])
def test_a_resumed_run_goes_on_as_it_began(place: str, tmp_path: Path):
    write_identity(tmp_path, {"varied on": place})
    seal_checkpoint(tmp_path)
    for device in ("cpu", "cuda"):
        varied = chosen("auto", some_args(device, str(tmp_path)), some_input()).varied
        assert (varied.place, varied.reason) == (place, "as the run began")


@pytest.mark.parametrize("workers", [0, 1])
def test_measuring_leaves_no_trace_in_random_numbers(workers: int):
    torch.manual_seed(0)
    pictures = some_input()
    seconds = varied_on._measured(
        some_args("cpu", workers=workers),  # type: ignore[arg-type]
        pictures,
        pictures.varied_on_device(PROCESSOR, POLICIES["light"]),
    )
    assert set(seconds) == {"cpu", "device"}
    assert min(seconds.values()) > 0
    found = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(found, torch.rand(1))
