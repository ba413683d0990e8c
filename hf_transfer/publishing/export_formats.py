"""The two formats: ONNX and torch.export's archive; how each is written and how it is run again.

Knows both exporters and what they leave in a file. Does not know pictures, or whether the result is right
(`hf_transfer.publishing.export_check`).
"""

import importlib.metadata
import importlib.util
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_transfer.errors import UserError

Runner = Callable[[torch.Tensor], torch.Tensor]
"""From pixel values of shape `(batch, channels, height, width)` to logits of shape `(batch, num_labels)`."""

FILE_NAMES = {"onnx": "model.onnx", "torch": "model.pt2"}
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LOWEST_OPSET = 18
"""The one that torch's exporter is written in; it writes none below."""
DEFAULT_OPSET = 20
OPSET_REASON = (
    "from 20 on GELU is one operator, and faster than the steps that 18 writes; later opsets were no faster, and "
    "fewer runtimes read them (benchmarks/results/export.md)"
)
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
"""How a `torch.save` (a zip of pickles) and a bare pickle begin."""


class LogitsOnly(torch.nn.Module):
    """A classifier as a function from `pixel_values` to logits, which is what both formats hold."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).logits


def check_packages(export_format: str) -> None:
    """Refuses ONNX where its packages are not installed, in one message for all of them."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if export_format == "onnx" and missing:
        raise UserError(
            f"--format onnx needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            "--format torch, which needs nothing more",
            f"pip install {' '.join(missing)}",
        )


def check_opset(export_format: str, opset: int | None) -> int | None:
    """Returns the opset to write, `None` for torch.export, which has none that a user chooses.

    Raises:
        [`~hf_transfer.errors.UserError`]: for an opset that the installed packages cannot write.
    """
    if export_format != "onnx":
        if opset is not None:
            raise UserError(f"--opset {opset} with --format {export_format}", "--opset with --format onnx")
        return None
    import onnx

    # The newest opsets are drafts until onnx releases them; torch knows none beyond its onnxscript's.
    highest = onnx.defs.onnx_opset_version()
    chosen = DEFAULT_OPSET if opset is None else opset
    if not LOWEST_OPSET <= chosen <= highest:
        raise UserError(
            f"--opset {chosen}",
            f"{LOWEST_OPSET} (the lowest that torch {torch.__version__} writes) to {highest} (the highest of onnx "
            f"{onnx.__version__})",
            f"--opset {DEFAULT_OPSET}",
        )
    return chosen


def capture(
    model: PreTrainedModel, pixel_values: torch.Tensor, *, plain: bool = False
) -> torch.export.ExportedProgram:
    """Captures a classifier as a graph, for batches of any size.

    Args:
        model (`PreTrainedModel`):
            In evaluation mode, on the CPU.
        pixel_values (`torch.Tensor`):
            Two pictures or more: a batch of one would be taken for a constant.
        plain (`bool`, *optional*, defaults to `False`):
            Capture attention as matrix products and a softmax, which ONNX needs.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the forward pass is no graph, or only for one size of batch.
    """
    try:
        with torch.no_grad(), _quiet(), _plain_attention(model, plain):
            return torch.export.export(
                LogitsOnly(model).eval(),
                (pixel_values,),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
    # What torch.export raises is not one family of exceptions: its own, torch._dynamo's, RuntimeError, TypeError, ...
    except Exception as error:
        raise _cannot(model, "torch.export", error) from error


def write_onnx(program: torch.export.ExportedProgram, model: PreTrainedModel, path: Path, opset: int) -> None:
    """Writes a graph as ONNX; weights beyond 2 GB come as a second file, `model.onnx.data`.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the graph holds an operation that ONNX has no words for.
    """
    import onnx

    try:
        with _quiet():
            written = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=["pixel_values"],
                output_names=["logits"],
                verbose=False,
            )
    except Exception as error:
        raise _cannot(model, f"torch.onnx.export (opset {opset})", error) from error
    assert written is not None
    _name_batch(written.model)
    written.save(path)
    onnx.checker.check_model(path)
    imported = {entry.domain: entry.version for entry in onnx.load(path, load_external_data=False).opset_import}
    if imported.get("") != opset:
        raise UserError(
            f"torch {torch.__version__} wrote opset {imported.get('')} where {opset} was asked for.",
            hint=f"--opset {imported.get('')}",
        )


def write_torch(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes torch.export's archive, without a pickle in it.

    `torch.export.save` writes the graph as JSON and weights as raw bytes, but the example inputs with `torch.save`,
    which is a pickle that `torch.export.load` unpickles. They are left out here; what is in the archive is checked.
    """
    program.example_inputs = None
    torch.export.save(program, path)
    pickles = pickled_members(path)
    if pickles:
        raise UserError(
            f"torch {torch.__version__} wrote pickles into the archive ({', '.join(pickles[:3])}), which can run code "
            "when they are opened.",
            hint="--format onnx",
        )


def pickled_members(path: Path) -> list[str]:
    """Returns the members of a .pt2 archive that are pickles; those of weights are raw numbers and told by name."""
    found = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("_config.json"):
                payloads = json.loads(content)["config"].values()
                found += [f"{name}: {payload['path_name']}" for payload in payloads if payload["use_pickle"]]
            elif "/weight_" not in name and "/tensor_" not in name and content.startswith(_PICKLE_STARTS):
                found.append(name)
    return found


def run_onnx(path: Path) -> Runner:
    """Opens an ONNX file with onnxruntime, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait would slow the original down, which is timed in turns with this one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixel_values: torch.from_numpy(session.run(["logits"], {"pixel_values": pixel_values.numpy()})[0])


def run_torch(path: Path) -> Runner:
    """Opens a .pt2 archive that [`write_torch`] wrote."""
    with _quiet():
        return torch.export.load(path).module()


def runtime_versions(export_format: str) -> dict[str, str]:
    """Returns the versions of the packages that only an export needs."""
    return {name: importlib.metadata.version(name) for name in ONNX_PACKAGES} if export_format == "onnx" else {}


def _name_batch(model: Any) -> None:
    """Calls the free dimension `batch`: exported from a graph, it has the name of a symbol, such as `s77`."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = type(value.shape)(["batch", *list(value.shape)[1:]])


def _cannot(model: PreTrainedModel, tool: str, error: Exception) -> UserError:
    first: BaseException = error
    while first.__cause__ is not None:  # the exporter packs what happened into advice on how to report it
        first = first.__cause__
    if isinstance(first, ImportError):
        return UserError(
            f"torch {torch.__version__} cannot work with the installed onnxscript "
            f"{importlib.metadata.version('onnxscript')}: {first}",
            hint="pip install -U onnxscript",
        )
    reason = next((line.strip() for line in str(first).splitlines() if line.strip()), type(first).__name__)
    return UserError(
        f"{type(model).__name__} ({model.config.model_type}) cannot be exported for batches of any size: {tool} of "
        f"torch {torch.__version__} says: {reason[:300]}",
        "models whose forward pass is one graph; benchmarks/results/export.md lists the families that were tried",
        "--debug for the whole story; transformers itself runs this model",
    )


@contextmanager
def _plain_attention(model: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Lets a model compute attention step by step, for as long as it is captured.

    Step-around: torch.onnx.export takes torch's fused attention apart into steps whose result lies otherwise in
    memory, and a `view` that was captured after it cannot be carried out: "Cannot view a tensor with shape ..." for
    Swin (torch 2.15; tests/publishing/test_export_formats.py has the case). The step-wise graph is also the faster one
    in onnxruntime (benchmarks/results/export.md). Goes when Swin exports with the attention that it runs with.
    """
    before: Any = getattr(model.config, "_attn_implementation", None)
    switch = wanted and before not in (None, "eager")
    fused: list[Any] = [module for module in model.modules() if wanted and getattr(module, "fused_attn", False)]
    try:
        if switch:
            model.set_attn_implementation("eager")
        for module in fused:  # timm's switch
            module.fused_attn = False
        yield
    finally:
        if switch:
            model.set_attn_implementation(str(before))
        for module in fused:
            module.fused_attn = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the exporters say of their own insides; what matters is checked on the file."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
