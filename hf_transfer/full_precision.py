"""Float32 that is float32, also where a training allowed less.

Knows torch's switches. Does not know what is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Keeps float32 what it says on GPUs: convolutions use TF32 by default, and training may have allowed more."""
    backends: Any = torch.backends  # the attribute is not in torch's type hints
    before = backends.fp32_precision
    backends.fp32_precision = "ieee"
    # What was said of one kind of operation alone does not follow the word about all.
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    own_words = [(kind, kind.fp32_precision) for kind in kinds if kind.fp32_precision != "ieee"]
    for kind, _ in own_words:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        backends.fp32_precision = before
        for kind, precision in own_words:
            kind.fp32_precision = precision
