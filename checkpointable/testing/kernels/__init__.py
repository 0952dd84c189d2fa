"""The kit for kernels: tests that a kernel of your own keeps the contract.

`kit` has the tests (`KernelTests`, and `verify_kernel`, which runs them without pytest); `machine`
is the one that plays random histories. `subject` is the kernel under test: how to make, advance,
checkpoint and restore it. `states` copies and compares states, and `wrong` makes the checkpoints
that a kernel must refuse.
"""

from checkpointable.testing.kernels.kit import KernelTests, verify_kernel

__all__ = ["KernelTests", "verify_kernel"]
