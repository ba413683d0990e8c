"""Ours: `finetune.py` as a user runs it, with a clock that writes the seconds of its epochs.

    python benchmarks/peer_ours.py CLOCK.json [options of finetune.py]

Knows nothing of peers. The clock reads the time twice an epoch.
"""

import gc
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def hang_clock(place: Path) -> None:
    """Lets every Trainer of this process write the seconds of its epochs."""
    # The command imports without the collector, and switches it on again; the clock's imports come before its own.
    gc.disable()
    from peer_clock import WrittenClock
    from transformers import trainer

    WrittenClock.place = place
    trainer.DEFAULT_CALLBACKS.append(WrittenClock)


if __name__ == "__main__":
    hang_clock(Path(sys.argv[1]))
    sys.argv = [str(ROOT / "finetune.py"), *sys.argv[2:]]
    sys.path.insert(0, str(ROOT))
    runpy.run_path(sys.argv[0], run_name="__main__")
