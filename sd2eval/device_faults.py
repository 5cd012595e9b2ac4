"""Errors of an accelerator itself, which the next batch on it would meet as well."""

from __future__ import annotations

from typing import Literal

import torch

from sd2eval.memory import is_out_of_memory

Fault = Literal["", "context", "gone"]
"""`context`: this process can use the device no more, a new one may find it well; `gone`: none will."""

GONE = (
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "fallen off the bus",
    "gpu is lost",
    "no cuda-capable device",
    "busy or unavailable",
    "hardware stack error",
)
"""What CUDA and its driver say of a GPU that is broken, missing, or taken away."""
CONTEXT = (
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
    "launch timed out",
    "illegal instruction",
    "misaligned address",
    "context is destroyed",
    "cublas_status_execution_failed",
    "cudnn_status_execution_failed",
)
"""What CUDA, cuBLAS and cuDNN say where a kernel broke the context of its process."""
SETTINGS = ("no kernel image", "invalid argument", "invalid configuration", "invalid device ordinal")
"""CUDA errors of a call that break nothing."""


def device_fault(error: BaseException | None) -> Fault:
    """Say whether an error, or one that it came from, is of the accelerator, not of what was asked of it."""
    while error is not None:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            said = str(error).lower()
            if any(words in said for words in GONE):
                return "gone"
            unknown = isinstance(error, torch.AcceleratorError) and not any(
                words in said for words in SETTINGS
            )
            if unknown or any(words in said for words in CONTEXT):
                return "context"
        error = error.__cause__
    return ""


def of_the_machine(error: BaseException | None) -> bool:
    """Say whether an error, or one that it came from, is of the accelerator or of memory.

    A file that was being read into them then is called unreadable, and may be as it should.
    """
    while error is not None:
        if is_out_of_memory(error) or device_fault(error):
            return True
        error = error.__cause__
    return False
