"""Tools to test your own kernels, stores and checkpoint classes; they need Hypothesis.

- `kernels`: `KernelTests` and `verify_kernel` test that a kernel keeps the contract.
- `stores`: `StoreTests` and `verify_store` test that a store keeps its promises; `FaultyStore`
  fails on demand.
- `strategies`: `checkpoints` and `checkpoint_classes`, for your own Hypothesis tests.
- `schemas`: `assert_schema` tests that what a checkpoint class stores has not changed by mistake.
- `report`: `ObligationBroken`, the error of a broken obligation: which one, where, and the usual
  cause; with what both kits need to define obligations.

Install them with `pip install 'checkpointable[testing]'`.
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
