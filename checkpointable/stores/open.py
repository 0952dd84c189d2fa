"""`open_store`: the store for a path, an address or an object."""

import os
import re

from checkpointable.errors import StoreError
from checkpointable.stores.address import SCHEMES, object_store
from checkpointable.stores.local.store import LocalStore
from checkpointable.stores.memory import MemoryStore
from checkpointable.stores.protocol import Store

_METHODS = ("create", "open", "list", "delete", "lock")


def open_store(where: str | os.PathLike[str] | Store) -> Store:
    """Return the store for `where`.

    A path is the directory of a `LocalStore`, which is created at the first write; "memory://" is a
    new `MemoryStore`; "s3://bucket/prefix", gs:// or az:// is a place in an object store (with the
    extra `object`; see docs/object-stores.md); and a store is itself. Anything else raises
    `StoreError`.

    >>> type(open_store("runs/heat")).__name__
    'LocalStore'
    >>> list(open_store("memory://").list())
    []
    """
    if isinstance(where, Store):
        return where
    hint = 'give a directory, "s3://bucket/prefix", "memory://", or an object with ' + ", ".join(
        _METHODS
    )
    if where == "memory://":
        return MemoryStore()
    if isinstance(where, str) and (match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", where)):
        if match[1].lower() in SCHEMES:
            return object_store(where)
        raise StoreError("no store for such an address", where=where, hint=hint)
    if not where or not isinstance(where, (str, os.PathLike)):
        raise StoreError(f"{where!r} cannot be opened as a store", hint=hint)
    return LocalStore(where)
