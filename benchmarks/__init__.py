"""Measurements that anyone can repeat: `python -m benchmarks.save_restore`."""
