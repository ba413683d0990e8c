"""The machine and the software that a run happened on.

Knows versions and hardware. Holds no names of users, hosts or folders: reports are published.
"""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "hf-transfer-learning",
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "datasets",
    "evaluate",
    "accelerate",
    "huggingface_hub",
    "safetensors",
    "pillow",
    "numpy",
    "scikit-learn",
)


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def available_cores() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware(num_processes: int) -> dict[str, Any]:
    """Returns processor, cores and accelerators, and the number of processes that used them."""
    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": _processor_name(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "accelerators": accelerators,
        "system": f"{platform.system()} {platform.machine()}",
        "num_processes": num_processes,
    }


def code_version(package: Path = Path(__file__).parent) -> dict[str, Any]:
    """Returns which code of ours ran: version, and, in a git checkout, commit and whether files differ from it.

    Args:
        package (`Path`, *optional*):
            The folder of the package.

    Returns:
        `dict`: `version`, `commit` (`None` where the package is no part of a checkout, or git does not answer) and
        `dirty` (`None` likewise).
    """
    version = package_versions()["hf-transfer-learning"]
    # A virtual environment inside of somebody's checkout is no part of it: only a tracked file proves that we are.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {"version": version, "commit": None, "dirty": None}
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")
    return {"version": version, "commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    """Returns what git answers; `None` where there is no git, or it refuses."""
    # Inside of a git hook these would point at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            env=environment,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def processor_vendor(cpu_facts: Path = Path("/proc/cpuinfo")) -> str:
    """Returns who made the processor in its own word, as `GenuineIntel`; empty where it cannot be told."""
    return _cpu_facts(cpu_facts).get("vendor_id", "")


def _processor_name(cpu_facts: Path = Path("/proc/cpuinfo")) -> str:
    """Returns what the processor calls itself, with family and model: a hypervisor may leave nothing but its brand."""
    facts = _cpu_facts(cpu_facts)
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    numbers = [f"{key} {facts[of]}" for key, of in (("family", "cpu family"), ("model", "model")) if of in facts]
    return f"{facts['model name']} ({', '.join(numbers)})" if numbers else facts["model name"]


def _cpu_facts(path: Path) -> dict[str, str]:
    """Returns what Linux says of the first core: a block of `key : value` lines for each, an empty line between."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
