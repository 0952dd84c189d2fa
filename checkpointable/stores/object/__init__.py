"""An object store as a store; needs the extra `object`.

`store` is the store, `bucket` the requests to it, `uploads` large blobs in parts, `lease` its lock.
"""

from checkpointable.stores.object.store import ObjectStore

__all__ = ["ObjectStore"]
