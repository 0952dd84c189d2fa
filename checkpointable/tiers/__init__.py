"""Two stores as one: `tiered` is the store, `tier` one of the two, `copier` copies in a thread."""

from checkpointable.tiers.tiered import Tiered

__all__ = ["Tiered"]
