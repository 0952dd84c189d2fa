"""The bytes of a file as they are, each verified before it is given: to copy it, or to check it."""

from collections.abc import Iterator

from checkpointable import digests, layout
from checkpointable.errors import CorruptCheckpoint
from checkpointable.layout import Bytes
from checkpointable.opening import Opened, read_bytes


def verbatim(file: Opened, key: bytes | None = None) -> Iterator[Bytes]:
    """Yield all of an open file, by blocks of at most 1 MiB; each is valid until the next.

    Of a delta, what lies in itself. Raises `CorruptCheckpoint` where it is damaged; without the key
    of a signed file, its signature is given as it is.
    """
    reader, header = file.files[0], file.header
    prefix = read_bytes(reader, 0, header.data_offset)
    digests.check_seal(prefix, file.table, file.seal)
    yield prefix
    offset, buffer = header.data_offset, memoryview(bytearray(layout.BLOCK))
    for placed in header.arrays.values():
        for index in placed.own():
            block = buffer[: placed.size(index)]
            reader.read_into(offset, block)
            digests.check_block(placed, index, block, file.table, header.meta.signed)
            yield block
            offset += len(block)
    if offset != header.digests_offset:
        raise CorruptCheckpoint("its blocks do not fill it", hint=layout.OLDER)
    yield file.table
    yield file.seal
    if header.meta.signed:
        said = read_bytes(
            reader, header.signature_offset, header.file_size - header.signature_offset
        )
        if key is not None:
            digests.check_signature(key, header, file.table, file.seal, said)
        yield said
