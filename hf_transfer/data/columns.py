"""Which column holds the pictures and which the labels.

Knows names and types that usually mean one or the other. Does not read rows beyond the first.
"""

from collections.abc import Sequence

import datasets

from hf_transfer.errors import UserError, nearest

IMAGE_NAMES = (
    "image", "img", "picture", "photo", "pixel_values", "image_path", "img_path", "file_name", "filename", "filepath",
    "file_path", "file", "path", "image_file", "image_id", "bytes", "image_bytes",
)  # fmt: skip
LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "fine_label",
    "class_name",
    "label_name",
    "species",
    "y",
)


def find_columns(
    features: datasets.Features, image_column: str | None, label_column: str | None, source: str
) -> tuple[str, str]:
    """Finds the image and the label column, by the user's word, by type, then by name.

    Args:
        features (`datasets.Features`):
            Columns and types of the table.
        image_column (`str`, *optional*):
            The user's choice.
        label_column (`str`, *optional*):
            The user's choice.
        source (`str`):
            The data set, for messages.

    Raises:
        UserError: if a column does not exist, none fits, or several do.
    """
    image = _chosen(features, image_column, "--image_column", source) or _guess_image(features, source)
    label = _chosen(features, label_column, "--label_column", source) or _guess_label(features, image, source)
    return image, label


def _chosen(features: datasets.Features, column: str | None, flag: str, source: str) -> str | None:
    if column is not None and column not in features:
        close = nearest(column, list(features))
        raise UserError(
            f"{flag} {column}: {source} has no such column.",
            ", ".join(features),
            f"{flag} {close}" if close else None,
        )
    return column


def _guess_image(features: datasets.Features, source: str) -> str:
    typed = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    return _only(typed or _named(features, IMAGE_NAMES), features, "picture", "--image_column", source)


def _guess_label(features: datasets.Features, image: str, source: str) -> str:
    others = {name: kind for name, kind in features.items() if name != image}
    typed = [name for name, kind in others.items() if isinstance(kind, datasets.ClassLabel)]
    named = _named(others, LABEL_NAMES)
    # Among several class labels, such as `fine_label` and `coarse_label`, a usual name decides.
    return _only([n for n in named if n in typed] or typed or named, features, "label", "--label_column", source)


def _named(features: dict, names: Sequence[str]) -> list[str]:
    """Returns the first column that goes by one of the names, in the order of the names."""
    lower = {name.lower(): name for name in features}
    return [lower[name] for name in names if name in lower][:1]


def _only(found: list[str], features: datasets.Features, what: str, flag: str, source: str) -> str:
    if len(found) == 1:
        return found[0]
    problem = f"may have its {what}s in {' or '.join(found)}" if found else f"has no column that looks like {what}s"
    raise UserError(
        f"{source} {problem}.", f"{flag} with one of: {', '.join(features)}", f"{flag} {next(iter(features))}"
    )
