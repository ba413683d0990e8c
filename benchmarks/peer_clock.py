"""A clock that hangs on Trainer: seconds of each epoch, for ours and for plain Trainer alike.

Knows the callbacks of transformers and nothing else, so that it costs no import.
"""

import json
import time
from pathlib import Path

from transformers import TrainerCallback


class EpochClock(TrainerCallback):
    """Measures training from the beginning to the end of an epoch, and validation from there to its result."""

    def __init__(self):
        self.train_seconds: list[float] = []
        self.validation_seconds: list[float] = []
        self._start = 0.0

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._start = time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.train_seconds.append(now - self._start)
        self._start = now

    def on_evaluate(self, args, state, control, **kwargs):
        self.validation_seconds.append(time.perf_counter() - self._start)


class WrittenClock(EpochClock):
    """Writes its seconds when the training is over."""

    place = Path()

    def on_train_end(self, args, state, control, **kwargs):
        self.place.write_text(
            json.dumps({name: getattr(self, name) for name in ("train_seconds", "validation_seconds")}),
            encoding="utf-8",
        )
