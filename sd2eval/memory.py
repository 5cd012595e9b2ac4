"""Running out of memory: the same work in smaller batches."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")

WORDS = ("out of memory", "allocate memory", "not enough memory", "could not create")
"""What MPS, torch on a CPU, and oneDNN (of a primitive or a memory object) say of it; what is about something
else fails again with a batch of one."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is about memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


def pieces(count: int, size: int) -> list[slice]:
    """Cut `count` rows into slices of `size`; the last may be shorter."""
    return [slice(start, start + size) for start in range(0, count, size)]


def in_smaller_batches(
    work: Callable[[int], Result], size: int, on_smaller: Callable[[int], None]
) -> tuple[Result, int]:
    """Return the result of `work` and the batch size that it took; half as much each time memory runs out.

    Args:
        work: does all of it with batches of a given size, from the beginning; what it draws does not depend
            on the size, within the published tolerance.
        size: to begin with.
        on_smaller: told each new size.

    Raises:
        Exception: whatever `work` raises that is not about memory, or is with a batch of one.
    """
    while True:
        try:
            return work(size), size
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Outside the handler, whose traceback holds the tensors of the failed attempt.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size //= 2
        on_smaller(size)
