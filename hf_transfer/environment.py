"""The machine and the software that a run happened on.

Knows versions and hardware. Holds no names of users, hosts or folders: reports are published.
"""

import os
import platform
from importlib import metadata
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


def hardware(num_processes: int) -> dict[str, Any]:
    """Returns processor, accelerators and memory, and the number of processes that used them."""
    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": accelerators,
        "system": f"{platform.system()} {platform.machine()}",
        "num_processes": num_processes,
    }


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except FileNotFoundError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
