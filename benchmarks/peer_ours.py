"""Ours: `finetune.py` as a user runs it, with a clock that writes the seconds of its epochs.

    python benchmarks/peer_ours.py CLOCK.json [options of finetune.py]

Knows nothing of peers. The clock reads the time twice an epoch.
"""

import gc
import json
import runpy
import sys
from pathlib import Path

# The command itself imports everything without the collector, and switches it on again; the clock comes before it.
gc.disable()

from peer_clock import EpochClock
from transformers import trainer

ROOT = Path(__file__).resolve().parents[1]


class WrittenClock(EpochClock):
    """Writes its seconds when the training is over."""

    place = Path()

    def on_train_end(self, args, state, control, **kwargs):
        self.place.write_text(
            json.dumps({name: getattr(self, name) for name in ("train_seconds", "validation_seconds")}),
            encoding="utf-8",
        )


if __name__ == "__main__":
    WrittenClock.place = Path(sys.argv[1])
    trainer.DEFAULT_CALLBACKS.append(WrittenClock)
    sys.argv = [str(ROOT / "finetune.py"), *sys.argv[2:]]
    sys.path.insert(0, str(ROOT))
    runpy.run_path(sys.argv[0], run_name="__main__")
