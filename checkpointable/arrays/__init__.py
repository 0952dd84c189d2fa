"""Arrays wherever they live: on the host, on a device, or still in a file.

`kinds` tells what an array is and where it lives, `interop` reads and overwrites it, `lazy` is an
array that is read when it is used, `staging` holds the host memory that saves copy to, `dtypes`
writes dtypes as JSON, and `boxes` are index ranges of an array. `cuda/` does the same for device
memory; it is imported only when there is a device array.
"""
# isort: skip_file
# fmt: off

from checkpointable.arrays.boxes import (
    Box, Numbers, bounds, check_box, check_boxes, overlapping,
)
from checkpointable.arrays.dtypes import dtype_from_json, dtype_to_json
from checkpointable.arrays.interop import (
    in_place, is_writable, on_host, overwrite, owned, replaced_like,
)
from checkpointable.arrays.kinds import HostArray, in_region, is_array, is_on_device, layout
from checkpointable.arrays.lazy import LazyArray, Region
from checkpointable.arrays.staging import Snapshot, Staging, fresh, staging_in_use

__all__ = [
    "Box", "HostArray", "LazyArray", "Numbers", "Region", "Snapshot", "Staging", "bounds",
    "check_box", "check_boxes", "dtype_from_json", "dtype_to_json", "fresh", "in_place",
    "in_region", "is_array", "is_on_device", "is_writable", "layout", "on_host", "overlapping",
    "overwrite", "owned", "replaced_like", "staging_in_use",
]
