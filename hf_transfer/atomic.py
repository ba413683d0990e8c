"""Files that a reader finds either as they were or whole.

Knows how a file is replaced. Does not know what is in it.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path` and puts it in the place of `path` when that has succeeded.

    Args:
        path (`Path`):
            The file; its folder is made if needed.
        write (`Callable[[Path], object]`):
            Writes to the path that it is given, which has the suffix of `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes files that only their owner reads; results are ordinary files.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
