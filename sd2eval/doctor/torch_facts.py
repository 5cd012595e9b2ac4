"""Run as a program: import torch, ask what it sees, and print that as JSON.

A process of its own, because a broken torch or driver can crash or hang whoever asks. Imports
nothing of sd2eval.
"""

from __future__ import annotations

import json
from typing import Any


def facts() -> dict[str, Any]:
    """Return what torch and torchvision say of themselves and of the devices."""
    import torch

    found: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
        "threads": torch.get_num_threads(),
        "mps": bool(torch.backends.mps.is_available()),
    }
    found["torchvision"], found["torchvision_error"] = _torchvision()
    found["driver"] = _driver()
    try:
        found["gpus"] = [_gpu(index) for index in range(torch.cuda.device_count())]
        if found["gpus"]:
            torch.cuda.synchronize()
        found["cuda_error"] = ""
    except Exception as error:  # whatever a driver makes torch raise
        found["gpus"], found["cuda_error"] = [], _line(error)
    return found


def _torchvision() -> tuple[str, str]:
    """Return its version, and why it cannot be imported; each may be empty."""
    try:
        import torchvision
    except Exception as error:  # a build for another torch raises a RuntimeError
        return "", _line(error)
    return str(torchvision.__version__), ""


def _gpu(index: int) -> dict[str, Any]:
    import torch

    try:
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except Exception as error:  # a card that is lost, or taken by another process alone
        return {"index": index, "error": _line(error)}
    return {
        "index": index,
        "error": "",
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "free": free,
        "total": total,
    }


def _driver() -> str:
    """Return the version of NVIDIA's driver, or nothing."""
    try:
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except Exception:  # no driver, no library
        return ""
    return version.decode() if isinstance(version, bytes) else str(version)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    print(json.dumps(facts()))
