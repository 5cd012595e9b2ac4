"""Where and in which precision to compute."""

from __future__ import annotations

import ctypes
import re

import torch

from sd2eval.device_faults import of_the_machine
from sd2eval.errors import InputError, Stopped


def resolve_device(name: str) -> torch.device:
    """Return the device, `auto` being the first GPU if there is one.

    Raises:
        InputError: there is no such device here.
        Stopped: there is one, and it has failed or has no memory left.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = re.split(r"\.\s|\n", str(error))[0][:200]
        if of_the_machine(error):
            hint = "; CUDA_VISIBLE_DEVICES can leave it out" if name.startswith("cuda") else ""
            raise Stopped(f"device={name}: cannot be used ({reason}){hint}") from error
        here = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise InputError(
            f"device={name}: not available ({reason}); this machine has {' '.join(['cpu', *here])}"
        ) from error
    return device


def resolve_dtype(name: str, device: torch.device) -> str:
    """Return the dtype's name, `auto` being float32 on a CPU and bfloat16 on a GPU."""
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return name


def set_precision(dtype: str) -> None:
    """Let a GPU round products to TF32 only beside a UNet in half precision: `float32` means float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype != "float32"


def device_name(device: torch.device) -> str:
    """Return what samples: the GPU's name or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def keep_freed_memory() -> None:
    """Let glibc reuse what was freed instead of handing it back to the kernel; elsewhere, do nothing.

    A UNet on a CPU allocates megabytes at every operation; fetching the pages anew each time costs a
    fifth of a mini sweep.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: the largest that glibc accepts
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    mallopt(-2, 64 << 20)  # M_TOP_PAD
