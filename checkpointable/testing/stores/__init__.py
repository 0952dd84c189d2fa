"""The kit for stores: tests that a store of your own keeps its promises, and a store that fails.

`kit` has the tests (`StoreTests`, and `verify_store`, which runs them without pytest), and
`faulty` has `FaultyStore`, which goes wrong once, where a test wants it.
"""

from checkpointable.testing.stores.faulty import FaultyStore
from checkpointable.testing.stores.kit import StoreTests, listed, read, verify_store

__all__ = ["FaultyStore", "StoreTests", "listed", "read", "verify_store"]
