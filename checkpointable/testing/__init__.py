"""Tools that prove your own kernels, stores and checkpoint classes right; needs Hypothesis.

- `KernelTests`, `verify_kernel`: a kernel keeps the contract.
- `StoreTests`, `verify_store`: a store keeps its promises. `FaultyStore` goes wrong on demand.
- `assert_schema`: what a checkpoint class stores has not changed by mistake.
- `checkpoints`, `checkpoint_classes`: Hypothesis strategies for your own properties.

Install them with `pip install 'checkpointable[testing]'`. What is wrong comes out as
`ObligationBroken`: which obligation, where, and the usual cause.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "checkpointable.testing needs Hypothesis: pip install 'checkpointable[testing]'"
    ) from error

from checkpointable.testing.kernels import KernelTests, verify_kernel
from checkpointable.testing.report import ObligationBroken
from checkpointable.testing.schemas import assert_schema
from checkpointable.testing.stores import FaultyStore, StoreTests, verify_store
from checkpointable.testing.strategies import checkpoint_classes, checkpoints

__all__ = [
    "FaultyStore",
    "KernelTests",
    "ObligationBroken",
    "StoreTests",
    "assert_schema",
    "checkpoint_classes",
    "checkpoints",
    "verify_kernel",
    "verify_store",
]
