"""The bytes of one checkpoint file; I/O only by the reader that is passed in.

`container` writes and parses a file: `header` and `layout` are its metadata, `extents` say where
blocks lie (a delta refers to its parents'), `digests` verify them and `blocks` compares them.
`reader` opens a file, `read_arrays` and `selection` read arrays or parts of them.
"""
# isort: skip_file
# fmt: off

from checkpointable.format.blocks import Place
from checkpointable.format.container import Packed
from checkpointable.format.digests import check_key, digest
from checkpointable.format.extents import Base
from checkpointable.format.layout import (
    DIGEST_SIZE, USE_OLDER, AnyArray, Bytes, Header, Meta, Parent, Part, Spec, StoredArray,
)
from checkpointable.format.read_arrays import (
    is_remote, lazy_array, mapped_array, read_array, read_block, read_rows, read_to_devices,
)
from checkpointable.format.reader import Opened, raw_bytes, read_sealed

__all__ = [
    "DIGEST_SIZE", "USE_OLDER", "AnyArray", "Base", "Bytes", "Header", "Meta", "Opened", "Packed",
    "Parent", "Part", "Place", "Spec", "StoredArray", "check_key", "digest", "is_remote",
    "lazy_array", "mapped_array", "raw_bytes", "read_array", "read_block", "read_rows",
    "read_sealed", "read_to_devices",
]
