"""Valid files taken apart, and files put together from parts that need not belong together."""

import hashlib
from functools import cache
from typing import Any

import orjson
from attrs import frozen

from checkpointable.format import container, digests, layout
from checkpointable.format.header import arrays_to_json, prefix_of, spec_from_json
from tests.hostile import classes

Path = tuple[Any, ...]


@frozen(eq=False)
class Base:
    """A valid file, taken apart: its metadata, the header around it, the data and the digests."""

    data: bytes
    about: dict[str, Any]
    text: bytes
    outer: dict[str, Any]
    tensors: bytes
    body: bytes
    table: bytes
    meta: layout.Meta
    placed: list[layout.StoredArray]
    tree: list[Path]
    arrays: list[Path]
    header: list[Path]


@cache
def bases() -> list[Base]:
    """The valid files that all others are made from."""
    return [_taken_apart(data) for data in classes.files()]


def _taken_apart(data: bytes) -> Base:
    start = container.header_size(data[:8], len(data))
    header = container.parse(data[:start], len(data))
    outer = orjson.loads(data[8:start])
    text = outer["__metadata__"]["checkpointable"].encode()
    about = orjson.loads(text)
    whole = data[8:start].rstrip()
    return Base(
        data,
        about,
        text,
        outer,
        whole[len(orjson.dumps({"__metadata__": outer["__metadata__"]})) - 1 :],
        data[start : header.digests_offset],
        data[header.digests_offset : header.seal_offset],
        header.meta,
        [*header.arrays.values()],
        places(about["tree"], ("tree",)),
        places(about["arrays"], ("arrays",))[1:],
        [path for path in places(outer, ()) if path and path[0] != "__metadata__"],
    )


def places(value: Any, path: Path) -> list[Path]:
    """The paths of a value's parts, from `path` on."""
    inner: Any = value.items() if type(value) is dict else ()
    inner = enumerate(value) if type(value) is list else inner
    return [path] + [place for key, part in inner for place in places(part, (*path, key))]


def texts(root: Any) -> list[Path]:
    """Where the texts are in a value."""

    def at(path: Path) -> Any:
        result = root
        for key in path:
            result = result[key]
        return result

    return [path for path in places(root, ()) if type(at(path)) is str]


def assembled(header: bytes, body: bytes, table: bytes) -> bytes:
    """A file of these parts, padded and sealed as a writer would."""
    size = -(-(8 + len(header)) // 4096) * 4096 - 8
    prefix = size.to_bytes(8, "little") + header.ljust(size)
    return b"".join((prefix, body, table, hashlib.sha256(prefix + table).digest()))


def with_text(base: Base, text: bytes) -> bytes:
    """The file with another text as its metadata, all else as it was."""
    try:
        quoted = orjson.dumps(text.decode())
    except ValueError:  # no Unicode: escaped as it is
        quoted = b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    header = b'{"__metadata__":{"checkpointable":' + quoted + b"}" + base.tensors
    return assembled(header, base.body, base.table)


def plan_layout(base: Base, about: dict[str, Any], describe: bool = True) -> bytes:
    """The file with other arrays: header, data and digests follow, if they can.

    With `describe`, so do the extents.
    """
    try:
        specs = {n: spec_from_json(n, a, sharded=False) for n, a in about["arrays"].items()}
        draft = layout.plan_layout(base.meta, specs)
        if draft.digests_offset > 1 << 16:
            raise ValueError
        if describe:
            about = about | {"arrays": arrays_to_json(draft)}
        prefix = prefix_of(orjson.dumps(about).decode(), draft)
    except Exception:  # it cannot be laid out, and so is told as it is
        return with_text(base, dumps(about))
    body = base.body[: draft.digests_offset].ljust(draft.digests_offset, b"\1")
    blocks = (
        (a.offset + i * layout.BLOCK, a.size(i)) for a in draft.arrays.values() for i in a.own()
    )
    table = b"".join(digests.digest(body[at : at + size]) for at, size in blocks)
    return prefix + body + table + hashlib.sha256(prefix + table).digest()


def dumps(about: Any) -> bytes:
    """JSON, or of what is none, other JSON."""
    try:
        return orjson.dumps(about, default=str)
    except orjson.JSONEncodeError:
        return b'{"format":1}'
