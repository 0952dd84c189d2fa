"""Named, immutable blobs: what a store promises, and the stores that come with the package.

`protocol` has one Protocol for each capability, `open` finds the store that an address means.
`local/` is a directory, `memory` the memory of the process, `object/` an object store.
"""
# isort: skip_file
# fmt: off

from checkpointable.stores.local.copies import How, duplicate
from checkpointable.stores.local.errors import os_errors
from checkpointable.stores.local.file import (
    FileReader, check_name, exactly, open_reader, sync_directory, write_durably,
)
from checkpointable.stores.local.store import LocalStore
from checkpointable.stores.memory import MemoryStore
from checkpointable.stores.open import open_store
from checkpointable.stores.protocol import (
    Buffer, Create, Delete, Entry, List, Lock, Open, Reader, Remote, Renames, SharedWriters, Store,
    Tiers,
)
from checkpointable.stores.shared_lock import SharedLock

__all__ = [
    "Buffer", "Create", "Delete", "Entry", "FileReader", "How", "List", "LocalStore", "Lock",
    "MemoryStore", "Open", "Reader", "Remote", "Renames", "SharedLock", "SharedWriters", "Store",
    "Tiers", "check_name", "duplicate", "exactly", "open_reader", "open_store", "os_errors",
    "sync_directory", "write_durably",
]
