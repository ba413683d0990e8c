"""Both formats hold the same model for batches of any size, and what cannot be exported is refused."""

import importlib.util
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from hf_transfer.errors import UserError
from hf_transfer.publishing import export_formats
from hf_transfer.publishing.export_check import check_comparison, compare
from hf_transfer.publishing.export_formats import (
    DEFAULT_OPSET,
    LogitsOnly,
    capture,
    check_opset,
    check_packages,
    pickled_members,
    run_onnx,
    run_torch,
    write_onnx,
    write_torch,
)
from tests.publishing.export_models import need_onnx, tiny_classifier

MODELS = (
    "vit",
    "convnext",
    "resnet",
    "swin",
    "mobilenet_v2",
    "efficientnet",
    "dinov2",
    "timm/test_vit",
    "timm/test_resnet",
)
QUICK = ("vit", "efficientnet", "timm/test_resnet")


def random_pixels(model: PreTrainedModel, count: int, seed: int = 0) -> torch.Tensor:
    config = model.config
    side = getattr(config, "image_size", None) or 32
    if hasattr(config, "pretrained_cfg"):
        side = config.pretrained_cfg["input_size"][-1]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_both_formats_hold_the_same_model(tmp_path: Path, name: str):
    need_onnx()
    model = tiny_classifier(tmp_path / "model", name).model
    original = LogitsOnly(model)
    write_onnx(capture(model, random_pixels(model, 2), plain=True), model, tmp_path / "model.onnx", DEFAULT_OPSET)
    write_torch(capture(model, random_pixels(model, 2)), tmp_path / "model.pt2")
    for run in (run_onnx(tmp_path / "model.onnx"), run_torch(tmp_path / "model.pt2")):
        for size in (1, 3, 8):  # captured with 2
            pixels = random_pixels(model, size, seed=size)
            with torch.inference_mode():
                wanted, found = original(pixels), run(pixels)
            assert found.shape == (size, 5)
            scale = wanted.abs().max()
            assert (found - wanted).abs().max() < 1e-4 * scale
            # Not a constant: the pictures of a batch are told apart by far more than that.
            assert size == 1 or (found[0] - found[1]).abs().max() > 1e-2 * scale


def test_attention_is_put_back_after_the_capture(tmp_path: Path):
    for name in ("swin", "timm/test_vit"):
        model = tiny_classifier(tmp_path / name, name).model
        before = attention_of(model)
        assert before & {"sdpa", True}
        assert captured_fused(capture(model, random_pixels(model, 2)))
        assert not captured_fused(capture(model, random_pixels(model, 2), plain=True))
        assert attention_of(model) == before


def attention_of(model: PreTrainedModel) -> set[object]:
    fused = {module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}
    return fused or {model.config._attn_implementation}


def captured_fused(program: torch.export.ExportedProgram) -> bool:
    return any("scaled_dot_product_attention" in str(node.target) for node in program.graph.nodes)


@pytest.mark.slow
def test_swin_needs_plain_attention(tmp_path: Path):
    """When this fails, torch has mended it and `_plain_attention` is a matter of speed alone."""
    need_onnx()
    model = tiny_classifier(tmp_path / "model", "swin").model
    with pytest.raises(UserError, match="Cannot view a tensor"):
        write_onnx(capture(model, random_pixels(model, 2)), model, tmp_path / "model.onnx", DEFAULT_OPSET)


def test_an_onnx_file_says_what_goes_in_and_out(tmp_path: Path):
    need_onnx()
    import onnx

    model = tiny_classifier(tmp_path / "model", "vit").model
    write_onnx(capture(model, random_pixels(model, 2)), model, tmp_path / "model.onnx", 21)
    written = onnx.load(tmp_path / "model.onnx")
    (entry,), (out,) = written.graph.input, written.graph.output
    sizes = [[side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim] for value in (entry, out)]
    assert (entry.name, out.name) == ("pixel_values", "logits")
    assert sizes == [["batch", 3, 32, 32], ["batch", 5]]
    assert {opset.version for opset in written.opset_import if opset.domain == ""} == {21}


def test_an_archive_holds_no_pickle(tmp_path: Path):
    model = tiny_classifier(tmp_path / "model", "resnet").model
    program = capture(model, random_pixels(model, 2))
    # What torch.export.save writes by itself: the example inputs as a pickle. Without this the check checks nothing.
    torch.export.save(program, tmp_path / "plain.pt2")
    assert [name.split("/")[-2:] for name in pickled_members(tmp_path / "plain.pt2")] == [
        ["sample_inputs", "model.pt"]
    ]
    write_torch(program, tmp_path / "model.pt2")
    assert pickled_members(tmp_path / "model.pt2") == []
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        (inputs,) = [name for name in archive.namelist() if "sample_inputs" in name]
        assert archive.read(inputs) == b""


def test_a_changed_weight_is_noticed(tmp_path: Path):
    model = tiny_classifier(tmp_path / "model", "vit").model
    program = capture(model, random_pixels(model, 2))
    write_torch(program, tmp_path / "model.pt2")
    run, pixels = run_torch(tmp_path / "model.pt2"), random_pixels(model, 6)
    check_comparison(compare(LogitsOnly(model), run, pixels), "torch")
    with torch.no_grad():
        model.classifier.weight.mul_(1.05)
    comparison = compare(LogitsOnly(model), run, pixels)
    assert comparison.max_abs_difference > comparison.allowed_difference
    with pytest.raises(UserError, match="not the same model"):
        check_comparison(comparison, "torch")


def test_a_batch_that_is_fixed_is_refused(tmp_path: Path):
    model = tiny_classifier(tmp_path / "model", "vit").model
    forward = model.forward

    def picky(pixel_values: torch.Tensor):
        # As a model that was written for one size of batch.
        return forward(pixel_values=pixel_values.reshape(2, 3, 32, 32))

    model.forward = picky
    with pytest.raises(UserError, match="ViTForImageClassification.*cannot be exported for batches of any size"):
        capture(model, random_pixels(model, 2))


def test_a_forward_pass_that_is_no_graph_is_refused(tmp_path: Path):
    model = tiny_classifier(tmp_path / "model", "vit").model
    forward = model.forward

    def branching(pixel_values: torch.Tensor):
        return forward(pixel_values=pixel_values if pixel_values.sum().item() > 0 else -pixel_values)

    model.forward = branching
    with pytest.raises(UserError) as caught:
        capture(model, random_pixels(model, 2))
    assert "cannot be exported" in str(caught.value)
    assert "transformers itself runs this model" in str(caught.value)
    assert caught.value.__cause__ is not None  # for --debug


def test_an_operation_that_onnx_has_no_words_for_is_refused(tmp_path: Path):
    need_onnx()
    model = tiny_classifier(tmp_path / "model", "vit").model
    forward = model.forward

    def exotic(pixel_values: torch.Tensor):
        answer = forward(pixel_values=pixel_values)
        answer.logits = torch.special.airy_ai(answer.logits)
        return answer

    model.forward = exotic
    program = capture(model, random_pixels(model, 2))
    with pytest.raises(UserError, match="torch.onnx.export"):
        write_onnx(program, model, tmp_path / "model.onnx", DEFAULT_OPSET)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("missing", [("onnxscript",), ("onnx", "onnxruntime", "onnxscript")])
def test_without_the_extra_one_message_names_all_packages(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        export_formats.importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name)
    )
    if len(missing) == 1:
        need_onnx()
    with pytest.raises(UserError) as caught:
        check_packages("onnx")
    assert f"pip install {' '.join(missing)}" in str(caught.value)
    check_packages("torch")


@pytest.mark.parametrize("opset", [17, 0, -1, 999])
def test_an_opset_that_cannot_be_written_is_refused(opset: int):
    need_onnx()
    with pytest.raises(UserError) as caught:
        check_opset("onnx", opset)
    assert f"--opset {opset}" in str(caught.value)
    assert "18" in str(caught.value)


def test_the_opset_is_onnx_s_alone():
    need_onnx()
    assert check_opset("onnx", None) == DEFAULT_OPSET
    assert check_opset("onnx", 18) == 18
    assert check_opset("torch", None) is None
    with pytest.raises(UserError, match="--opset 18 with --format torch"):
        check_opset("torch", 18)
