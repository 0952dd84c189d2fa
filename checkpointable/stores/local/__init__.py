"""A directory as a store.

`store` is the store. `file` has the durable write and reads by range, `writer` writes past the page
cache, `mapped` maps a file, `copies` duplicates one without copying its data, and `errors` turns
the system's errors into ours.
"""
