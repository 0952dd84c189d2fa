"""PageRank: which nodes of a directed graph a random surfer is at, by power iteration.

Brin and Page (1998), The anatomy of a large-scale hypertextual web search engine, Computer Networks
30, 107-117. With probability `damping` the surfer follows one of the edges that leave the node, all
equally likely; otherwise, and from nodes that no edge leaves, it jumps to a random node.
"""

from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable import Array, HealthStatus, KernelMetadata, capture, checkpoint, reinstate
from checkpointable.kernels.checks import check_checkpoint, check_option, check_value, on_host
from checkpointable.kernels.pagerank.graph import GraphIdentity, read_graph
from checkpointable.kernels.target import Device, choose_target

KARATE = Path(__file__).with_name("_karate.txt")
"""Zachary's karate club, a graph of 34 nodes and 156 edges that comes with the package."""

TERMS = 256  # that one thread adds, at least; the threads' sums are then added in the same way
TOLERANCE = 1e-9  # by which the sum of ranks may differ from 1; rounding errors are far smaller


@frozen
class PageRankSetup:
    """What a checkpoint and the kernel that restores it must share; see `PageRank`.

    The graph is not part of the checkpoint: `graph` identifies it. The file's name and the order
    of its lines may change.
    """

    graph: GraphIdentity
    damping: float


@checkpoint("pagerank")
@frozen
class PageRankCheckpoint:
    """The state of a `PageRank` after `step` iterations.

    `ranks`, (n,) float64, are those of the nodes in the order of their numbers; their sum is 1.
    `residual`, (1,) float64, is the sum of the absolute changes that the last iteration made to
    them; infinite before the first.
    """

    step: int
    setup: PageRankSetup
    ranks: Array[np.float64]
    residual: Array[np.float64]


class PageRank:
    """The ranks of the nodes of a graph. One step is one iteration.

    `path`
        a text file of edges, as SNAP publishes them: two node numbers a line, from and to, and
        lines of comment that begin with #. The default is a graph of 34 nodes, Zachary's karate
        club.
    `damping`
        probability that the surfer follows an edge, 0 to 1 (not 1 itself).
    `iterations`
        `total_steps`, the length of a natural run. A kernel can be advanced beyond it.
    `device`
        "cpu", "cuda", or "auto" for CUDA where there is a device.

    Raises `InvalidKernel` on an option out of range, and if the file cannot be read or holds
    anything else (with the number of the line).

    An edge that is given twice counts once; an edge from a node to itself counts. After k
    iterations the ranks differ from their limit, summed over the nodes, by at most 2 · damping^k,
    and by at most the residual times damping / (1 - damping).

    The result does not depend on the number of CPU cores or of CUDA's blocks. That of CUDA
    differs from the CPU's by rounding, as CUDA fuses multiplications and additions: relative to
    each rank by less than 1e-13.

    >>> ranking = PageRank(device="cpu")
    >>> ranking.advance(ranking.total_steps)
    >>> [(node, round(rank, 4)) for node, rank in ranking.top(2)]
    [(34, 0.1009), (1, 0.097)]
    """

    metadata = KernelMetadata(id="pagerank", version="1", domain="graph analytics",
                              description="ranks of a graph's nodes, power iteration")  # fmt: skip

    def __init__(
        self,
        path: Path = KARATE,
        *,
        damping: float = 0.85,
        iterations: int = 200,
        device: Device = "auto",
    ) -> None:
        check_option(
            "damping", f"{damping=}", valid=0 <= damping < 1, hint="use 0 or more, below 1"
        )
        check_option("iterations", f"{iterations=}", valid=iterations >= 0, hint="use 0 or more")
        graph = read_graph(Path(path))

        from checkpointable.kernels.pagerank import programs

        self._programs = programs
        self._target = choose_target(device)
        self.setup = PageRankSetup(graph.identity(), float(damping))
        self.total_steps = iterations
        self.step = 0
        place, n = self._target.place, len(graph.numbers)
        self._numbers = graph.numbers
        self._offsets, self._sources = place(graph.offsets), place(graph.sources)
        self._degrees = place(graph.degrees)
        self._shares, self._terms = place(np.zeros(n)), place(np.zeros(n))
        self._sums = [place(np.zeros(length)) for length in _lengths(n)]
        self.ranks = place(np.full(n, 1 / n))
        self.residual = place(np.array([np.inf]))

    def advance(self, steps: int) -> None:
        """Do `steps` iterations."""
        launch, programs, n = self._target.launch, self._programs, len(self._numbers)
        for _ in range(steps):
            launch(programs.SPLIT, n, self.ranks, self._degrees, self._shares, self._terms)
            self._add(self._sums[-1])
            launch(
                programs.GATHER, n, self._offsets, self._sources, self._shares, self._sums[-1],
                self.setup.damping, self.ranks, self._terms,
            )  # fmt: skip
            self._add(self.residual)
            self.step += 1
        self._target.wait()

    def _add(self, total: Any) -> None:
        """Add up the terms into `total`, an array of one: parts first, then the parts' sums."""
        values = self._terms
        for sums in (*self._sums[:-1], total):
            self._target.launch(self._programs.ADD, sums.shape[0], values, sums)
            values = sums

    async def checkpoint(self) -> PageRankCheckpoint:
        """Return a snapshot of the state."""
        return await capture(PageRankCheckpoint, self)

    async def restore(self, checkpoint: PageRankCheckpoint) -> None:
        """Continue from `checkpoint`.

        Raises `InvalidCheckpoint` if it is of another graph or damping, or its ranks are invalid.
        """
        check_checkpoint(checkpoint, PageRankCheckpoint, self, self.setup)
        ranks = on_host(checkpoint.ranks)
        check_value("ranks", "a rank is negative or NaN", valid=bool(np.all(ranks >= 0)))
        total = float(ranks.sum())
        valid = abs(total - 1) < TOLERANCE
        check_value("ranks", f"the sum of the ranks is {total}, not 1", valid=valid)
        await reinstate(checkpoint, self)

    def checkpoint_size_estimate(self) -> int:
        """Return the size of a checkpoint's arrays in bytes."""
        return 8 * (len(self._numbers) + 1)

    def health_check(self) -> HealthStatus:
        """Report whether the sum of the ranks is 1."""
        total = float(self._target.fetch(self.ranks).sum())
        if abs(total - 1) < TOLERANCE:
            return HealthStatus()
        return HealthStatus(healthy=False, reason=f"the sum of the ranks is {total}")

    def top(self, count: int = 5) -> list[tuple[int, float]]:
        """Return the nodes with the highest ranks, by their numbers in the file, and these ranks.

        Of equal ranks, the lower number is first.
        """
        ranks = self._target.fetch(self.ranks)
        best = np.argsort(-ranks, kind="stable")[:count]
        return [(int(self._numbers[i]), float(ranks[i])) for i in best]

    def summary(self) -> dict[str, int | float]:
        """Return the graph's size, the residual, and the five highest ranks."""
        graph = self.setup.graph
        residual = float(self._target.fetch(self.residual)[0])
        top = {f"rank of node {number}": rank for number, rank in self.top()}
        return {"nodes": graph.nodes, "edges": graph.edges, "residual": residual, **top}


def _lengths(n: int) -> list[int]:
    """Return the number of sums of n terms, of sums of these sums, and so on to one.

    The numbers are odd: they are the distance between the terms of a sum, and powers of two
    collide in caches.

    >>> _lengths(34), _lengths(1_000_000)
    ([1], [3907, 17, 1])
    """
    lengths: list[int] = []
    while n > 1 or not lengths:
        n = -(-n // TERMS) | 1
        lengths.append(n)
    return lengths
