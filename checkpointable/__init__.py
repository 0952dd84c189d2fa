"""Checkpoint and restore for long-running, stateful GPU kernels."""
