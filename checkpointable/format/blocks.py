"""The blocks of arrays, on the host or on a device."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TypeAlias

from checkpointable.arrays import LazyArray, Region
from checkpointable.format import layout
from checkpointable.format.layout import AnyArray, Bytes, Header, StoredArray, gather
from checkpointable.threads import parallel_map

Place: TypeAlias = tuple[StoredArray, int]
"""An array and the index of one of its blocks."""

Read: TypeAlias = Callable[[Iterable[Place]], Iterator[Bytes]]
"""Yields blocks in order, each valid until the next is requested."""

Source: TypeAlias = AnyArray | LazyArray
"""A host array, or a lazy one in a region of a device."""


def read(arrays: Mapping[str, Source], places: Iterable[Place]) -> Iterator[Bytes]:
    """Yield blocks of arrays; those of a contiguous host array are not copied."""
    pieces = (_piece(arrays[placed.name], placed, index) for placed, index in places)
    if not any(isinstance(array, LazyArray) for array in arrays.values()):
        return (piece for piece in pieces if not isinstance(piece, Region))
    from checkpointable.arrays.cuda.transfer import download  # which imports Numba

    return download(pieces)


def _piece(array: Source, placed: StoredArray, index: int) -> Bytes | Region:
    if not isinstance(array, LazyArray):
        return gather(array, index)
    assert array.region is not None
    return array.region.part(index * layout.BLOCK, placed.size(index))


def device_digests(arrays: Mapping[str, Source], header: Header) -> dict[str, bytes]:
    """The digests of each array on a device, computed there in one launch, on all at a time."""
    regions = {n: a.region for n, a in arrays.items() if isinstance(a, LazyArray) and a.region}
    by_device: dict[int, list[str]] = {}
    for name, region in regions.items():
        by_device.setdefault(region.device, []).append(name)
    if not by_device:
        return {}
    from checkpointable.arrays.cuda.digest import digests_of  # which imports Numba

    def of_device(device: int) -> bytes:
        return digests_of(device, [regions[name] for name in by_device[device]], layout.BLOCK)

    tables = parallel_map(of_device, [*by_device], len(by_device), "digest")
    digests: dict[str, bytes] = {}
    for names, table in zip(by_device.values(), tables, strict=True):
        ends = accumulate(layout.DIGEST_SIZE[False] * header.arrays[name].blocks for name in names)
        begin = 0
        for name, end in zip(names, ends, strict=True):
            digests[name], begin = table[begin:end], end
    return digests
