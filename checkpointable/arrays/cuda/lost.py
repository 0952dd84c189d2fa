"""Errors of CUDA, told apart: after some, nothing on the device can be believed any more."""

from collections.abc import Iterator
from contextlib import contextmanager

from checkpointable.errors import DeviceError, DeviceLost

_OUT_OF_MEMORY = 2
_NO_RESULT = -1
_STICKY = frozenset({214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 999})
"""Results of the driver API after which every call fails, and the process has to end: ECC and
NVLink errors, illegal addresses and instructions, time-outs, assertions, failed launches. Source:
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html (CUresult)."""

_lost: list[str] = []


class _NoMemory(DeviceError, MemoryError):
    """There is no memory of a device, or of pages that it could copy to by itself."""


def check_not_lost() -> None:
    """Raise `DeviceLost` if an error has been seen that a CUDA context does not survive."""
    if _lost:
        raise DeviceLost(
            f"the device was lost: {_lost[0]}",
            hint="start the process again; it resumes from the newest checkpoint",
        )


@contextmanager
def cuda_errors() -> Iterator[None]:
    """Raise `DeviceError` for what the driver refuses, and remember what it does not survive.

    `MemoryError` if it has no memory left.
    """
    check_not_lost()
    try:
        yield
    except Exception as error:
        code = _result(error)
        if code is None:
            raise
        if code == _OUT_OF_MEMORY:
            hint = "leave some megabytes free, on the device and on the host"
            raise _NoMemory(f"CUDA has no memory left: {error}", hint=hint) from error
        if code in _STICKY:
            _lost.append(str(error))
            check_not_lost()
        raise DeviceError(f"CUDA refuses: {error}") from error


def _result(error: Exception) -> int | None:
    """The driver's result that an error of Numba's, or of cuda.core's, is about."""
    if type(error).__name__ == "CudaAPIError":  # by name, since importing it would load Numba
        return int(getattr(error, "code", 999))
    if type(error).__name__ != "CUDAError":
        return None
    from cuda.bindings import driver  # pyright: ignore[reportMissingImports]

    name = str(error).partition(":")[0]
    return int(driver.CUresult.__members__.get(name, _NO_RESULT))
