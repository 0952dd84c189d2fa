"""Checkpoint and restore for long-running, stateful GPU kernels."""

from checkpointable.annotations import Array
from checkpointable.archive import load_file, save_file
from checkpointable.attributes import capture, reinstate
from checkpointable.checkpointer import Checkpointer, Restored, Saved
from checkpointable.errors import (
    CheckpointableError,
    CheckpointExists,
    CorruptCheckpoint,
    InvalidCheckpoint,
    InvalidKernel,
    NoCheckpoint,
    NotNow,
    SchemaMismatch,
    StoreError,
    StoreFull,
    StoreLocked,
    UnsupportedType,
)
from checkpointable.policy import every, last
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
from checkpointable.runner import EX_PREEMPTED, Preempted, Progress, Report, run
from checkpointable.schema import checkpoint
from checkpointable.store import Store
from checkpointable.stores import LocalStore, MemoryStore, open_store

__all__ = [
    "EX_PREEMPTED",
    "Array",
    "CheckpointExists",
    "Checkpointable",
    "CheckpointableError",
    "CheckpointableKernel",
    "Checkpointer",
    "CorruptCheckpoint",
    "GpuKernel",
    "HealthStatus",
    "InvalidCheckpoint",
    "InvalidKernel",
    "KernelMetadata",
    "KernelMode",
    "LocalStore",
    "MemoryStore",
    "NoCheckpoint",
    "NotNow",
    "Preempted",
    "Progress",
    "Report",
    "Restored",
    "Saved",
    "SchemaMismatch",
    "SteppableKernel",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "UnsupportedType",
    "can_checkpoint",
    "capture",
    "check_kernel",
    "checkpoint",
    "checkpoint_size_estimate",
    "every",
    "health_check",
    "last",
    "load_file",
    "open_store",
    "reinstate",
    "run",
    "save_file",
    "shutdown",
    "validate",
]
