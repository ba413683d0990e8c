"""A folder of pictures, one folder for each class, with or without one for each split.

Knows which layouts are understood and which names splits go by. Does not open pictures.
"""

from pathlib import Path

from PIL import Image

from hf_transfer.data.table import RawSplits, RawTable, stored_images
from hf_transfer.errors import UserError

SPLIT_ALIASES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "tst"),
}
LAYOUT = "<folder>/<class>/<picture>, or <folder>/train/<class>/<picture> and the same for validation and test"


def canonical_split(name: str) -> str | None:
    """Returns `train`, `validation` or `test` for a name that a split goes by, in any case; else `None`."""
    for split, aliases in SPLIT_ALIASES.items():
        if name.lower() in aliases:
            return split
    return None


def read_folder(root: Path) -> RawSplits:
    """Lists the pictures of a folder by split and class.

    Folders that hold nothing but one other folder, as archives often do, are gone through.

    Args:
        root (`Path`):
            The folder.

    Returns:
        `RawSplits`: one table for each split found, or one called `all`.

    Raises:
        UserError: if there are no class folders with pictures, or two folders for one split.
    """
    folder = _innermost(root)
    splits: dict[str, Path] = {}
    candidates = [child for child in _subfolders(folder) if canonical_split(child.name)]
    # Without class folders in any of them they are classes themselves: `train` is a means of transport too.
    for child in candidates if any(_subfolders(child) for child in candidates) else []:
        split = canonical_split(child.name) or ""
        if split in splits:
            raise UserError(
                f"{root} has two folders for the {split} split: {splits[split].name!r} and {child.name!r}.",
                hint="remove or rename one of them",
            )
        splits[split] = child
    if not splits:
        return {"all": _read_classes(folder, root)}
    return {split: _read_classes(path, path) for split, path in splits.items()}


def _read_classes(folder: Path, root: Path) -> RawTable:
    extensions = {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    classes = _subfolders(folder)
    if not classes:
        raise UserError(
            f"{root} has no class folders.",
            LAYOUT,
            "sort the pictures into one folder for each class, or move it away",
        )
    paths: list[str] = []
    labels: list[str] = []
    for child in classes:
        for path in sorted(child.rglob("*")):
            if path.suffix.lower() in extensions and path.is_file() and not _hidden(path.relative_to(child)):
                paths.append(str(path))
                labels.append(child.name)
    if not paths:
        raise UserError(f"No pictures were found in the class folders of {folder}.", LAYOUT)
    return RawTable(stored_images(paths), labels, tuple(child.name for child in classes))


def _innermost(folder: Path) -> Path:
    """Goes down through folders that hold a single folder, such as `data/`, and no pictures of their own."""
    while True:
        children = _subfolders(folder)
        if len(children) != 1 or canonical_split(children[0].name) or not _subfolders(children[0]):
            return folder
        folder = children[0]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(Path(path.name)))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
