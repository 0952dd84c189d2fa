"""Checkpoint and restore for long-running, stateful GPU kernels.

The way of the data, and where each part is:

kernel        `protocol` says what one is; `kernels` has a gallery
checkpoint    `attributes`: `capture` and `reinstate`
its class     `annotations`, `fields`, `supported`, `schema`; `migrations` lead from older versions
tree, arrays  `tree`, `convert`: by cattrs, equal in value and in type
container     `container`, of `layout`, `headers`, `blocks`, `delta` and `digests`: the file format,
              without I/O; `opening`, `reading` and `slabs` read it, `codec` joins it with the above
arrays        `device`: wherever they are; snapshots, digests and transfers of those on devices
store         `store` says what one promises; `stores` has a directory, the memory, object stores
archive       `archive`: checkpoints by step in a store, by `names`; `retention`: which stay;
              `single`: files
ranks         `distributed`: checkpoints of many processes, one commit; of `shards`, `boxes`,
              `agreement`, and `coordinator`, which alone knows MPI
tiers         `tiers`: two stores as one, of `tier` and `copier`; `raw_bytes`: files as they are
run           `checkpointer`, `saving`: one kernel and one store; `runner`: the main job, of `loop`,
              `policy` (when to save), `keep` (what stays), `costs`, `preempt` (signals), `events`,
              `sinks`; `cli`
again         `supervisor`: the main job in a process that is started again when it fails, of
              `child`, `endings` and `supervised`, which is the run's side of it

Errors are in `errors`. Importing this package does not import Numba.
"""

from typing import TYPE_CHECKING, Any

from checkpointable.archive import best, every_nth, last, spread, within
from checkpointable.arrays import LazyArray
from checkpointable.capture import capture, check_fit, reinstate
from checkpointable.checkpointer import Checkpointer, Restored, Saved, Saving
from checkpointable.distributed import Coordinator, MpiCoordinator
from checkpointable.errors import (
    CheckpointableError,
    CheckpointExists,
    CorruptCheckpoint,
    DeviceError,
    DeviceLost,
    InvalidCheckpoint,
    InvalidKernel,
    NoCheckpoint,
    NotNow,
    SchemaMismatch,
    StoreError,
    StoreFull,
    StoreLocked,
    Unhealthy,
    UnsupportedType,
)
from checkpointable.files import load_file, save_file
from checkpointable.protocol import (
    Checkpointable,
    CheckpointableKernel,
    GpuKernel,
    HealthStatus,
    KernelMetadata,
    KernelMode,
    SteppableKernel,
    can_checkpoint,
    check_kernel,
    checkpoint_size_estimate,
    health_check,
    shutdown,
    validate,
)
from checkpointable.runner import (
    EX_PREEMPTED,
    Preempted,
    at,
    continuously,
    every,
    on_signal,
    overhead,
    run,
    safe_point,
    young_daly,
)
from checkpointable.runner.run import Progress, Report
from checkpointable.schema import Array, Shard, checkpoint
from checkpointable.stores import LocalStore, MemoryStore, Store, open_store
from checkpointable.tree import migrate

if TYPE_CHECKING:
    from checkpointable.tiers import Tiered

__all__ = [
    "EX_PREEMPTED",
    "Array",
    "CheckpointExists",
    "Checkpointable",
    "CheckpointableError",
    "CheckpointableKernel",
    "Checkpointer",
    "Coordinator",
    "CorruptCheckpoint",
    "DeviceError",
    "DeviceLost",
    "GpuKernel",
    "HealthStatus",
    "InvalidCheckpoint",
    "InvalidKernel",
    "KernelMetadata",
    "KernelMode",
    "LazyArray",
    "LocalStore",
    "MemoryStore",
    "MpiCoordinator",
    "NoCheckpoint",
    "NotNow",
    "Preempted",
    "Progress",
    "Report",
    "Restored",
    "Saved",
    "Saving",
    "SchemaMismatch",
    "Shard",
    "SteppableKernel",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "Tiered",
    "Unhealthy",
    "UnsupportedType",
    "at",
    "best",
    "can_checkpoint",
    "capture",
    "check_fit",
    "check_kernel",
    "checkpoint",
    "checkpoint_size_estimate",
    "continuously",
    "every",
    "every_nth",
    "health_check",
    "last",
    "load_file",
    "migrate",
    "on_signal",
    "open_store",
    "overhead",
    "reinstate",
    "run",
    "safe_point",
    "save_file",
    "shutdown",
    "spread",
    "validate",
    "within",
    "young_daly",
]


def __getattr__(name: str) -> Any:
    if name == "Tiered":  # when it is asked for: it takes a while to import, and few need it
        from checkpointable.tiers import Tiered

        return Tiered
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
