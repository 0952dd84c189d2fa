"""Checkpoint and restore for long-running, stateful GPU kernels.

A folder is one concept, and its `__init__` names what others may import. Each part imports only
from those listed before it:

errors, threads     the error tree; work in threads
events, sinks       what happens to a run, and where it is reported
arrays              arrays wherever they live; only `arrays.cuda` and the kernels import Numba
protocol            what a kernel is
schema              the checkpoint's class: its types, its fields, its version
stores              named immutable blobs: a directory, an object store, memory
tree                a checkpoint to a JSON tree and named arrays, and back; migrations
format              the bytes of one file
capture             a kernel's attributes to a checkpoint, and back
archive             checkpoints by step in a store, and which of them to keep
files               one checkpoint, one file
distributed, tiers  many ranks, one commit; two stores as one
checkpointer        one kernel and one store: saves that overlap the steps, and restores
runner              the main job: run a kernel, and when to save
supervisor          runs the job in a child process, and starts it again
kernels             a gallery, which uses the public names only
testing, cli        the kits for your own kernels and stores; the command line

Data flows from the kernel to its checkpoint class, to a tree and arrays, to a file, to a store, and
back the same way. Importing this package does not import Numba.
"""
# isort: skip_file
# fmt: off

from typing import TYPE_CHECKING, Any

from checkpointable.archive import Keep, KeptStep, best, every_nth, last, spread, within
from checkpointable.arrays import LazyArray
from checkpointable.capture import capture, check_fit, reinstate
from checkpointable.checkpointer import Checkpointer, Restored, Saved, Saving
from checkpointable.distributed import Coordinator, MpiCoordinator
from checkpointable.errors import (
    CheckpointableError, CheckpointExists, CorruptCheckpoint, DeviceError, DeviceLost,
    InvalidCheckpoint, InvalidKernel, NoCheckpoint, NotNow, SchemaMismatch, StoreError,
    StoreFull, StoreLocked, Unhealthy, UnsupportedType,
)
from checkpointable.files import load_file, save_file
from checkpointable.protocol import (
    Checkpointable, CheckpointableKernel, GpuKernel, HealthStatus, KernelMetadata, KernelMode,
    SteppableKernel, can_checkpoint, check_kernel, checkpoint_size_estimate, health_check,
)
from checkpointable.runner import (
    EX_PREEMPTED, Due, Moment, Preempted, Progress, Report, When, at, continuously, every,
    on_signal, overhead, run, safe_point, young_daly,
)
from checkpointable.schema import Array, Shard, checkpoint
from checkpointable.stores import LocalStore, MemoryStore, Store, open_store
from checkpointable.tree import migrate

if TYPE_CHECKING:
    from checkpointable.tiers import Tiered

__all__ = [
    "EX_PREEMPTED", "Array", "CheckpointExists", "Checkpointable", "CheckpointableError",
    "CheckpointableKernel", "Checkpointer", "Coordinator", "CorruptCheckpoint", "DeviceError",
    "DeviceLost", "Due", "GpuKernel", "HealthStatus", "InvalidCheckpoint", "InvalidKernel",
    "Keep", "KeptStep", "KernelMetadata", "KernelMode", "LazyArray", "LocalStore",
    "MemoryStore", "Moment", "MpiCoordinator", "NoCheckpoint", "NotNow", "Preempted",
    "Progress", "Report", "Restored", "Saved", "Saving", "SchemaMismatch", "Shard",
    "SteppableKernel", "Store", "StoreError", "StoreFull", "StoreLocked", "Tiered", "Unhealthy",
    "UnsupportedType", "When", "at", "best", "can_checkpoint", "capture", "check_fit",
    "check_kernel", "checkpoint", "checkpoint_size_estimate", "continuously", "every",
    "every_nth", "health_check", "last", "load_file", "migrate", "on_signal", "open_store",
    "overhead", "reinstate", "run", "safe_point", "save_file", "spread", "within", "young_daly",
]


def __getattr__(name: str) -> Any:
    if name == "Tiered":  # lazily: it takes a while to import, and few need it
        from checkpointable.tiers import Tiered

        return Tiered
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
