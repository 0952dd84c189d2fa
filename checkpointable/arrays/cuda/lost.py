"""CUDA's errors, and those after which the device cannot be used any more in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from checkpointable.errors import DeviceError, DeviceLost

_OUT_OF_MEMORY = 2
_NO_RESULT = -1
_STICKY = frozenset({214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 810, 911, 999})
"""Results of the driver API after which every call fails until the process ends: ECC and NVLink
errors, illegal addresses and instructions, timeouts, assertions, failed launches. Source:
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html (CUresult)."""

_lost: list[str] = []


class DriverError(Exception):
    """A result of the driver that is not success."""

    def __init__(self, result: Any) -> None:
        self.code = int(result)
        super().__init__(getattr(result, "name", str(result)))


def check(results: tuple[Any, ...]) -> Any:
    """Return what a call of the driver returned beside its result; raise if that is an error."""
    result, *values = results
    if result:
        raise DriverError(result)
    return values[0] if len(values) == 1 else values


class _NoMemory(DeviceError, MemoryError):
    """A device has no free memory, or the host has none that can be pinned."""


def check_not_lost() -> None:
    """Raise `DeviceLost` if there was an error that a CUDA context does not survive."""
    if _lost:
        raise DeviceLost(
            f"the device was lost: {_lost[0]}",
            hint="restart the process; it resumes from the newest checkpoint",
        )


@contextmanager
def cuda_errors() -> Iterator[None]:
    """Raise `DeviceError` for CUDA's errors, and remember those that a context does not survive.

    An error for lack of memory is a `MemoryError`, too.
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
        raise DeviceError(f"a CUDA call failed: {error}") from error


def _result(error: Exception) -> int | None:
    """The driver's result code in an error of Numba or cuda.core; None for any other error."""
    if isinstance(error, DriverError):
        return error.code
    if type(error).__name__ == "CudaAPIError":  # by name, since to import it would import Numba
        return int(getattr(error, "code", 999))
    if type(error).__name__ != "CUDAError":
        return None
    from cuda.bindings import driver  # pyright: ignore[reportMissingImports]

    name = str(error).partition(":")[0]
    return int(driver.CUresult.__members__.get(name, _NO_RESULT))
