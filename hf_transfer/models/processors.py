"""The checkpoint's own image processor.

Knows how to load it and what to say where there is none. Does not know which pixels it makes: training transforms read
its settings in `hf_transfer.data.transforms`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from transformers import AutoImageProcessor, BaseImageProcessor

from hf_transfer.errors import UserError
from hf_transfer.models.source import CheckpointFiles


def load_image_processor(files: CheckpointFiles) -> BaseImageProcessor:
    """Loads the image processor that was saved with a checkpoint; for timm, the one that its configuration describes.

    Args:
        files ([`CheckpointFiles`]):
            The checkpoint.

    Returns:
        `BaseImageProcessor`: of the class that the checkpoint names.

    Raises:
        [`~hf_transfer.errors.UserError`]: where there is none, or none that runs without code from the Hub.
    """
    try:
        with quiet_transformers():  # "falling back to pil", for every timm checkpoint
            return AutoImageProcessor.from_pretrained(files.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise _processor_error(files, error) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides the warnings of transformers, where this package reports the same facts or there is nothing to do."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _processor_error(files: CheckpointFiles, error: Exception) -> UserError:
    names = ("preprocessor_config.json", "processor_config.json")
    present = [name for name in names if (files.folder / name).is_file()]
    if not present:
        return UserError(
            f"{files.source!r} has no image processor (no preprocessor_config.json), so nobody knows which pixels its "
            "weights expect.",
            "a checkpoint with its image processor",
            "save the right one beside the weights: `AutoImageProcessor.from_pretrained(BASE_MODEL)"
            ".save_pretrained(FOLDER)`",
        )
    if "trust_remote_code" in str(error):
        return UserError(
            f"The image processor of {files.source!r} is code from the Hub, which is not run here.",
            "an image processor that is part of transformers",
        )
    reason = str(error).strip().split("\n")[0]
    return UserError(
        f"transformers {transformers.__version__} cannot load the image processor of {files.source!r} "
        f"({present[0]}): {reason}",
        "an image processor saved by `save_pretrained`",
    )
