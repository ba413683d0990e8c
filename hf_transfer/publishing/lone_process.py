"""The surroundings of a process that tries a saved model out, as somebody else would.

Knows what such a process must not have: the network, an accelerator that the run still holds, secrets, a cache that
the run has filled, or a part in a distributed run. Does not start it.
"""

import os

# A process of its own must not wait for the others of a distributed run.
_DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
_PREFIXES = ("ACCELERATE_", "TORCHELASTIC_", "FSDP_", "DEEPSPEED_")
_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY")


def lone_environment(home: str) -> dict[str, str]:
    """Returns the variables of such a process.

    Args:
        home (`str`):
            An empty folder, where it finds no cache.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _DISTRIBUTED and not name.startswith(_PREFIXES) and not any(word in name for word in _SECRETS)
    }
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": home,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONIOENCODING": "utf-8",
    }
