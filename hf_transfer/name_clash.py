"""Another package on PyPI installs a module called `hf_transfer` too: noticed at start.

PyPI's `hf-transfer` is a download accelerator written in Rust. Installed beside us, its files and ours lie in one
folder, and which of the two `import hf_transfer` finds is luck. Knows how to see that; does not mend it.
"""

from importlib import metadata
from pathlib import Path

from hf_transfer.errors import UserError

OTHER = "hf-transfer"


def check_name_clash() -> None:
    """Raises a `UserError` if PyPI's `hf-transfer` is installed or its extension module lies in our folder."""
    try:
        version = metadata.version(OTHER)
    except metadata.PackageNotFoundError:
        version = None
    strangers = sorted(
        path.name for path in Path(__file__).parent.glob("hf_transfer.*") if path.suffix in (".so", ".pyd")
    )
    if version is None and not strangers:
        return
    found = f"version {version}" if version else f"its file {strangers[0]}"
    raise UserError(
        f"PyPI's package `{OTHER}` is installed ({found}): an unrelated download accelerator with the same import "
        "name, hf_transfer.",
        "one of the two in an environment",
        f"pip uninstall -y {OTHER}, then install hf-transfer-learning again (pip install -e . in its folder)",
    )
