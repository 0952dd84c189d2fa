"""What must hold however a file came to be: it is refused with an error of ours, or it is sound."""

import hashlib
import math
import struct
import sys
import traceback
import tracemalloc
import warnings
import zoneinfo
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # here, so that no file is the first to ask for it
import numpy as np
import orjson
import safetensors
from attrs import frozen

from checkpointable.archive import codec
from checkpointable.cli.view.statistics import statistics
from checkpointable.cli.view.tree import tree_lines
from checkpointable.errors import CheckpointableError, InvalidCheckpoint
from checkpointable.format import layout, read_arrays
from checkpointable.format.reader import Opened, opened, read_header
from checkpointable.schema.schema import schema_of
from checkpointable.stores.protocol import Reader
from checkpointable.tree.tree import insert, to_tree
from tests.helpers.equality import same_dtype
from tests.hostile import classes
from tests.hostile.pools import TAGS

WATCHED = (
    "import", "open", "exec", "compile", "ctypes.dlopen", "pickle.find_class", "subprocess.Popen",
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "os.remove", "os.mkdir",
)  # fmt: skip
OWN_ZONES = ("tzdata", "importlib.resources")
"""Time zones come from the machine or from the package tzdata, by a name that the file has."""

_TOLD = [
    (rf"\"schema\":{{\"name\":\"{name}\"".encode(), cls) for name, cls in classes.CLASSES.items()
]
_seen: list[str] = []
_judging = False


class Finding(AssertionError):
    """A file that broke the reader, or that the reader took for what it is not."""


@frozen(eq=False)
class Bytes:
    """A reader of bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]


def judge(data: bytes, thorough: bool = True) -> str:
    """Read a file in every way; say "accepted" or "refused: <error>", or raise `Finding`.

    Without `thorough`, what its own class refuses is not read in the other ways, too, which begin
    with the same; nor is all that it accepts.
    """
    global _judging
    _watch()
    _judging = True
    try:
        with warnings.catch_warnings():  # those of NumPy about values, in a migration or in show
            warnings.simplefilter("ignore")
            verdict = _judged(Bytes(data), thorough)
    finally:
        _judging = False
    if _seen:
        reported = _seen[0]
        _seen.clear()
        raise Finding(f"reading it did more than read: {reported}")
    return verdict


def _judged(reader: Bytes, thorough: bool) -> str:
    own = next((cls for marker, cls in _TOLD if marker in reader.data), classes.Walk)
    value, error = _tried(f"decode as {own.__name__}", _decode, reader, own)
    if value is None and not thorough:
        return f"refused: {error}"
    header, why = _tried("read_header", read_header, reader)
    if value is not None:
        if header is None:
            raise Finding(f"decoded, but the header is refused: {why}")
        if type(header.meta.schema["version"]) is not int:
            raise Finding("decoded, but its version is no number")
        seal = hashlib.sha256(reader.data[: 8 + int.from_bytes(reader.data[:8], "little")])
        seal.update(reader.data[header.digests_offset : header.seal_offset])
        if seal.digest() != reader.data[header.seal_offset :][:32]:
            raise Finding("decoded, but the seal is broken")
        _same_again(header, reader, value, own)
    if thorough:
        for name, other in classes.CLASSES.items():
            result, _ = _tried(f"decode as {other.__name__}", _decode, reader, other)
            if result is not None and (header is None or header.meta.schema["name"] != name):
                raise Finding("decoded as a class that it is not of")
    if thorough or reader.data[-1] < 64:  # some of those that are accepted
        verified, why = _tried("verify", _verify, reader)
        if verified is not None:
            _opened_by_safetensors(verified, reader.data)
            _tried("show", _shown, reader)
        elif value is not None and own is not classes.Walk:  # whose migrations leave some out
            raise Finding(f"decoded, but not verified: {why}")
    return "accepted" if value is not None else f"refused: {error}"


def _tried(what: str, read: Any, *args: Any) -> tuple[Any, str]:
    """What came of it, or the name of our error."""
    try:
        return read(*args), ""
    except CheckpointableError as error:
        if not isinstance(error, InvalidCheckpoint):
            raise Finding(f"{what}: {type(error).__name__} of bytes in memory") from error
        str(error).encode(errors="surrogatepass")
        return None, type(error).__name__
    except Finding:
        raise
    except Exception as error:
        raise Finding(f"{what}: {type(error).__name__} escapes, {_origin(error)}") from error


def _origin(error: Exception) -> str:
    """Where in the package an error came from, in words that outlast an edit."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [f.f_code for f in frames if f.f_globals.get("__name__", "").startswith("checkpointable")]
    return f"{Path(own[-1].co_filename).stem}.{own[-1].co_name}" if own else "from elsewhere"


def _shown(reader: Bytes) -> None:
    shown(opened(reader))


def shown(checkpoint: Opened) -> None:
    """What `checkpointable show` makes of it."""
    header = checkpoint.header
    for _ in tree_lines(header.meta.tree, header.arrays):
        pass
    for placed in header.arrays.values():
        statistics(checkpoint, placed)


def _opened_by_safetensors(header: layout.Header, data: bytes) -> None:
    try:
        tensors = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    except Exception as error:
        raise Finding(f"verified, but safetensors refuses it: {error}") from error
    hmac = ["$hmac"] if header.meta.signed else []
    if tensors.keys() != {*header.arrays, "$digests", "$seal", *hmac}:
        raise Finding("safetensors sees other arrays")
    for name, placed in header.arrays.items():
        shape = tuple(tensors[name]["shape"])
        if shape not in (placed.shape, (*placed.shape, placed.dtype.itemsize)):
            raise Finding("safetensors sees another shape")
        if len(tensors[name]["data"]) != placed.nbytes:
            raise Finding("safetensors sees other bytes")


def _same_again(header: layout.Header, reader: Bytes, value: Any, cls: Any) -> None:
    """What was decoded must be encoded to the tree and the arrays that the file has."""
    tree, arrays = to_tree(value, cls)
    if header.meta.schema["version"] != schema_of(cls).version:
        return  # migrated
    checkpoint = opened(reader)
    stored = {n: read_arrays.read_array(checkpoint, n) for n in header.arrays}
    for name, placed in header.arrays.items():
        if (stored[name].dtype, stored[name].shape) != (placed.dtype, placed.shape):
            raise Finding("an array is read as another dtype or shape than the file says")
    if not alike(insert(tree, arrays), insert(header.meta.tree, stored)):
        raise Finding("decoded from another form than it is encoded to: " + _where(header, tree))


def _where(header: layout.Header, tree: Any) -> str:
    """The kind of what differs, so that findings of a kind can be told apart."""
    stored = header.meta.tree
    while type(stored) is type(tree) is dict and stored.keys() == tree.keys():
        key = next((k for k in tree if not alike(tree[k], stored[k])), None)
        if key is None:
            break
        if str(key).startswith("$"):
            return str(key)
        stored, tree = stored[key], tree[key]
    while type(stored) is type(tree) is list and len(stored) == len(tree):
        at = next((i for i in range(len(tree)) if not alike(tree[i], stored[i])), None)
        if at is None:
            break
        stored, tree = stored[at], tree[at]
    return f"{_kind(stored)} for {_kind(tree)}"


def _kind(wire: Any) -> str:
    tags = sorted(k for k in wire if k.startswith("$")) if type(wire) is dict else []
    known = [tag for tag in tags if tag in TAGS]
    return " ".join(known) if known else "a key with $" if tags else type(wire).__name__


def alike(a: Any, b: Any) -> bool:
    """Equal in value and in type, all the way down; arrays by dtype, shape and bytes.

    The order of an object's keys is left aside: that of a class's fields may change.
    """
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is dict:
        if a.keys() == b.keys() == {"$union", "$member"}:  # an empty list fits several members
            return alike(a["$union"], b["$union"])
        if a.keys() == b.keys() and a.keys() in ({"$set"}, {"$frozenset"}):  # in no order
            return sorted(map(orjson.dumps, *a.values())) == sorted(map(orjson.dumps, *b.values()))
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if kind is list:
        return len(a) == len(b) and all(map(alike, a, b))
    if kind is float:
        return struct.pack("d", a) == struct.pack("d", b)
    if kind is np.ndarray:
        raw = f"V{a.itemsize}"  # tobytes of a structured array leaves its padding out
        alike_dtype = same_dtype(a.dtype, b.dtype) and a.shape == b.shape
        empty = not a.itemsize or not math.prod(a.shape)
        return alike_dtype and (empty or a.view(raw).tobytes() == b.view(raw).tobytes())
    return bool(a == b)


# --- the bounds -------------------------------------------------------------------------------


def peak(data: bytes) -> int:
    """The most memory that any way of reading takes; Python's and NumPy's."""
    most = 0
    tracemalloc.start()
    try:
        for read in (_verify, *(_decoder(cls) for cls in classes.CLASSES.values())):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            _tried("within bounds", read, Bytes(data))
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return most


def _decoder(cls: Any) -> Any:
    return lambda reader: _decode(reader, cls)


def _decode(reader: Reader, cls: Any) -> Any:
    return codec.decode(opened(reader), cls)


def _verify(reader: Reader) -> layout.Header:
    return read_arrays.verify(opened(reader))


def bound(data: bytes) -> int:
    """How much that may be: JSON of empty objects is what takes most, for its size."""
    return (2 << 20) + 128 * len(data)


# --- nothing else happens ---------------------------------------------------------------------


@cache
def _watch() -> None:
    """Have everything made that is made on first use, and from then on note what happens."""
    classes.warm()
    for data in classes.files():
        _judged(Bytes(data), True)
    zones = tuple(map(str, (*zoneinfo.TZPATH, *_tzdata())))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if _judging and event in WATCHED and not _harmless(event, args, zones):
            _seen.append(f"{event} {str(args[:1])[:80]}")

    sys.addaudithook(hook)


def _harmless(event: str, args: tuple[Any, ...], zones: tuple[str, ...]) -> bool:
    if event == "import":
        return str(args[0]).startswith(OWN_ZONES)
    if event == "open":
        return str(args[0]).startswith(zones)
    if event == "compile":  # hooks, made of the fields of the class
        return str(args[1]).startswith("<checkpointable ")
    return event == "exec" and args[0].co_filename.startswith(("<checkpointable ", *zones))


def _tzdata() -> list[Path]:
    try:
        import tzdata  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return []
    return [*map(Path, tzdata.__path__)]
