"""What every test needs: a Hub of its own on this machine, and the real checkpoints where they are.

huggingface_hub freezes `HF_ENDPOINT` and the cache's place when it is imported, so the server and the environment come
first. With pytest-xdist every worker process has its own server and cache.
"""

import atexit
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import HubServer

if "huggingface_hub" in sys.modules:
    raise RuntimeError("huggingface_hub was imported before tests/conftest.py could set HF_ENDPOINT")

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores: threads of several on one core would wait for each other by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_HOME = tempfile.mkdtemp(prefix="hf-transfer-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
_SERVER = HubServer()
atexit.register(_SERVER.close)

for _name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_", "TRANSFORMERS_"))]:
    if _name != "HF_TRANSFER_ASSETS":
        del os.environ[_name]
os.environ |= {
    "HF_ENDPOINT": _SERVER.url,
    "HF_HOME": _HOME,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "no_proxy": "127.0.0.1,localhost",
}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """The Hub that huggingface_hub talks to, empty at first."""
    _SERVER.reset()
    yield _SERVER
    _SERVER.reset()


@pytest.fixture
def repo_id(request: pytest.FixtureRequest) -> str:
    """A repository id of this test's own, so that the cache never knows it from another test."""
    return f"someone/{re.sub(r'[^A-Za-z0-9]+', '-', request.node.name).strip('-')[:80].strip('-')}"


@pytest.fixture
def assets() -> Path:
    """The folder of real checkpoints and data sets."""
    folder = os.environ.get("HF_TRANSFER_ASSETS")
    if not folder:
        pytest.skip("needs real checkpoints: set HF_TRANSFER_ASSETS to their folder")
    return Path(folder)


@pytest.fixture
def four_threads() -> Iterator[None]:
    """As many threads of torch's kernels as make two lanes; tests have one otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)
