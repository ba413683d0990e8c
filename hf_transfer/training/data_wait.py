"""The share of the training time that is spent waiting for pictures.

Knows when a step asks for its batches, when it has them and when it ends. Where nothing runs beside the training (no
worker processes), decoding itself counts as waiting. On a GPU that still has work queued the wait may cost less than
it looks like; a share near zero is certain either way. In several processes the wait for the slowest one is in it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainerCallback


class DataWait(TrainerCallback):
    """Adds up the seconds of steps and those of them in which a step waited for its pictures."""

    def __init__(self):
        self.waited = 0.0
        self.total = 0.0
        self._asked: float | None = None
        self._before = (0.0, 0.0)

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Measures the time spent inside as waiting, and begins a step."""
        self._asked = time.perf_counter()
        yield
        self.waited += time.perf_counter() - self._asked

    def on_step_end(self, args, state, control, **kwargs):
        if self._asked is not None:
            self.total += time.perf_counter() - self._asked
            self._asked = None

    @property
    def share(self) -> float | None:
        """Share of all steps so far; `None` before the first."""
        return self.waited / self.total if self.total else None

    def share_since_last(self) -> float | None:
        """Returns the share of the steps since this was last called; `None` if there were none."""
        waited, total = self.waited - self._before[0], self.total - self._before[1]
        self._before = (self.waited, self.total)
        return waited / total if total else None
