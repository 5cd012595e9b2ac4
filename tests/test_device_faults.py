"""Which errors are the accelerator's own, by the types that torch raises and the words that CUDA says."""

from __future__ import annotations

import pytest
import torch

from sd2eval.device_faults import device_fault
from sd2eval.devices import resolve_device
from sd2eval.errors import InputError, Stopped


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered\nCompile with ..."), "context"),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "context"),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "context"),
        (torch.AcceleratorError("CUDA error: unknown error"), "context"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
            "context",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "context"),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), "gone"),
        (torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "gone"),
        (RuntimeError("Unable to determine the device handle for GPU: GPU is lost. Reboot"), "gone"),
        (RuntimeError("GPU 0000:3B:00.0 has fallen off the bus"), "gone"),
        (RuntimeError("No CUDA-capable device is detected"), "gone"),
        (torch.AcceleratorError("CUDA error: out of memory"), ""),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), ""),
        (torch.AcceleratorError("CUDA error: invalid configuration argument"), ""),
        (torch.AcceleratorError("CUDA error: no kernel image is available for execution"), ""),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), ""),
        (ValueError("device-side assert triggered"), ""),
        (OSError(28, "No space left on device"), ""),
        (None, ""),
    ],
)
def test_errors_of_the_device_are_told_from_those_of_the_work(error: Exception | None, fault: str) -> None:
    assert device_fault(error) == fault


def test_an_error_that_another_one_came_from_counts() -> None:
    failed = ValueError("the extractor failed")
    failed.__cause__ = torch.AcceleratorError("CUDA error: device-side assert triggered")
    assert device_fault(failed) == "context"


def test_what_a_real_allocator_and_a_real_kernel_say_is_not_the_device() -> None:
    with pytest.raises(RuntimeError) as memory:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError) as shapes:
        torch.ones(2, 3) @ torch.ones(4, 5)
    assert device_fault(memory.value) == device_fault(shapes.value) == ""


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.AcceleratorError("CUDA error: out of memory\nCompile with ..."), Stopped),
        (
            torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nCompile with ..."),
            Stopped,
        ),
        (torch.AcceleratorError("CUDA error: invalid device ordinal\nGPU device may be ..."), InputError),
        (AssertionError("Torch not compiled with CUDA enabled"), InputError),
    ],
)
def test_a_device_that_is_there_and_fails_is_told_from_one_that_is_not(
    error: Exception, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(*_: object, device: torch.device) -> None:
        raise error

    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(raised) as said:
        resolve_device("cuda:0")
    assert str(error).split("\n")[0] in str(said.value)
    assert "\n" not in str(said.value)
