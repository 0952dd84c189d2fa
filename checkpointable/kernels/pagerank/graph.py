"""A directed graph, from a file of edges to the arrays that `pagerank` walks."""

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from attrs import frozen

from checkpointable import InvalidKernel

Int32 = np.ndarray[Any, np.dtype[np.int32]]
Int64 = np.ndarray[Any, np.dtype[np.int64]]

MAX_NODES = 2**31 - 1  # an int32 numbers them


@frozen
class GraphIdentity:
    """What identifies a graph: the numbers of nodes and of edges, and a digest.

    `digest` is XXH3-128, in hex, of the little-endian bytes of `Graph`'s arrays `numbers`,
    `offsets` and `sources`, in this order. It detects accidents, not manipulation.
    """

    nodes: int
    edges: int
    digest: str


@frozen(eq=False)
class Graph:
    """A directed graph by its incoming edges (CSR), each once.

    `numbers`, (n,) int64, are the nodes' numbers in the file, ascending. The edges that lead to
    node i come from the nodes sources[offsets[i] : offsets[i + 1]], ascending: `offsets` is
    (n + 1,) int64, `sources` (m,) int32. `degrees`, (n,) int64, is the number of edges that leave
    each node.
    """

    numbers: Int64
    offsets: Int64
    sources: Int32
    degrees: Int64

    def identity(self) -> GraphIdentity:
        """Return what identifies this graph."""
        digest = xxhash.xxh3_128()
        for values, dtype in ((self.numbers, "<i8"), (self.offsets, "<i8"), (self.sources, "<i4")):
            digest.update(np.ascontiguousarray(values, dtype).data)
        return GraphIdentity(len(self.numbers), len(self.sources), digest.hexdigest())


def read_graph(path: Path) -> Graph:
    """Read a graph from a text file: two node numbers a line, from and to, as SNAP has them.

    Blank lines and lines that begin with `#` are skipped. Numbers are 0 to 2^63 - 1, in decimal
    digits; the nodes are those that are named. An edge that is given twice counts once; a node may
    have an edge to itself. Reading takes some seconds for ten million edges.

    Raises `InvalidKernel` if the file cannot be read, if a line is anything else (with its
    number), and if there is no edge.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "edges.txt")
    ...     _ = path.write_text("# from to\\n7 3\\n3 9\\n9 3\\n7 3\\n")
    ...     graph = read_graph(path)
    >>> graph.numbers.tolist(), graph.offsets.tolist(), graph.sources.tolist()
    ([3, 7, 9], [0, 2, 2, 3], [1, 2, 0])
    """
    ends = array("q")
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                words = line.split()
                if not words or words[0].startswith(b"#"):
                    continue
                if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
                    raise _malformed(path, number, line)
                try:
                    ends.extend((int(words[0]), int(words[1])))
                except (OverflowError, ValueError):  # of 2^63 and above; of 4300 digits and more
                    raise _malformed(path, number, line) from None
    except OSError as error:
        raise InvalidKernel(f"the file cannot be read: {error.strerror}", where=str(path),
                            hint="name a file of edges") from error  # fmt: skip
    if not ends:
        raise InvalidKernel("the file has no edges", where=str(path), hint="name a file of edges")
    return _graph(np.frombuffer(ends, np.int64).reshape(-1, 2))


def _malformed(path: Path, number: int, line: bytes) -> InvalidKernel:
    text = line[:40].decode("utf-8", "backslashreplace").strip()
    return InvalidKernel(
        f"line {number} is not an edge: {text!r}",
        where=f"{path}:{number}",
        hint="write two node numbers, 0 to 2^63 - 1, or begin a comment with #",
    )


def _graph(edges: Int64) -> Graph:
    numbers, ends = np.unique(edges, return_inverse=True)
    if len(numbers) > MAX_NODES:
        raise InvalidKernel(f"{len(numbers)} nodes are more than {MAX_NODES}", hint="use fewer")
    ends = ends.reshape(-1, 2)
    sources, targets = ends[:, 0], ends[:, 1]
    order = np.lexsort((sources, targets))
    sources, targets = sources[order], targets[order]
    repeated = (np.diff(sources, prepend=-1) == 0) & (np.diff(targets, prepend=-1) == 0)
    sources, targets = sources[~repeated], targets[~repeated]
    n = len(numbers)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(targets, minlength=n))])
    return Graph(
        numbers,
        offsets.astype(np.int64),
        sources.astype(np.int32),
        np.bincount(sources, minlength=n).astype(np.int64),
    )
