"""The kit for kernels: `kit` has `KernelTests` and `verify_kernel`; the rest are its parts."""
