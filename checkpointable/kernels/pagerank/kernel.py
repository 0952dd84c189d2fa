"""PageRank: which nodes of a directed graph a random surfer is at, by power iteration.

Brin and Page (1998), The anatomy of a large-scale hypertextual web search engine, Computer Networks
30, 107-117. With probability `damping` the surfer follows an edge of those that leave the node,
each as likely; otherwise, and from nodes that none leaves, it goes to any node, each as likely.
"""

from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable import Array, HealthStatus, KernelMetadata, capture, checkpoint, reinstate
from checkpointable.kernels._checks import on_host, require, require_fit, require_sound
from checkpointable.kernels._target import Device, choose_target
from checkpointable.kernels.pagerank.graph import GraphIdentity, read_graph

KARATE = Path(__file__).with_name("_karate.txt")
"""Zachary's karate club, a graph of 34 nodes and 156 edges that comes with the package."""

ADDED = 256  # terms by one thread, at least; the sums of all threads are then added likewise
TOLERANCE = 1e-9  # by which the sum of ranks may differ from 1; rounding makes far less of it


@frozen
class PageRankSetup:
    """What a checkpoint and the kernel that restores it must share; see `PageRank`.

    The graph is not part of the checkpoint: `graph` says which it must be. The file's name, and
    the order of its lines, may change.
    """

    graph: GraphIdentity
    damping: float


@checkpoint("pagerank")
@frozen
class PageRankCheckpoint:
    """The state of a `PageRank` after `step` iterations.

    `ranks`, (n,) float64, are those of the nodes by rising number, together 1. `residual`, (1,)
    float64, is by how much the last iteration changed them, in absolute value and together;
    infinite before the first.
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
        how likely the surfer is to follow an edge, 0 to 1 (not 1 itself).
    `iterations`
        how long a natural run is: `total_steps`. More may be done.
    `device`
        "cpu", "cuda", or "auto" for CUDA where there is a device.

    Raises `InvalidKernel` on an option out of range, and if the file cannot be read or holds
    anything else (with the number of the line).

    Edges that are there twice count once, those from a node to itself count. Together the ranks
    differ from their limit by 2 · damping^k at most after k iterations, and by the residual times
    damping / (1 - damping).

    The result does not depend on the number of CPU cores or of CUDA's blocks. That of CUDA
    differs from the CPU's by rounding, as CUDA fuses multiplications and additions: relative to
    each rank by less than 1e-13.

    >>> ranking = PageRank(device="cpu")
    >>> ranking.advance(ranking.total_steps)
    >>> [(node, round(rank, 4)) for node, rank in ranking.top(2)]
    [(34, 0.1009), (1, 0.097)]
    """

    def __init__(
        self,
        path: Path = KARATE,
        *,
        damping: float = 0.85,
        iterations: int = 200,
        device: Device = "auto",
    ) -> None:
        require(0 <= damping < 1, f"{damping=}", option="damping", hint="use 0 or more, below 1")
        require(iterations >= 0, f"{iterations=}", option="iterations", hint="use 0 or more")
        graph = read_graph(Path(path))

        from checkpointable.kernels.pagerank import programs as _pagerank_programs

        self._programs = _pagerank_programs
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

    @property
    def metadata(self) -> KernelMetadata:
        """Who this kernel is."""
        return KernelMetadata(id="pagerank", version="1", domain="graph analytics",
                              description="ranks of a graph's nodes, power iteration")  # fmt: skip

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
        """Add the terms, by parts and parts of parts, into an array of one."""
        values = self._terms
        for sums in (*self._sums[:-1], total):
            self._target.launch(self._programs.ADD, sums.shape[0], values, sums)
            values = sums

    async def checkpoint(self) -> PageRankCheckpoint:
        """Return a snapshot of the state."""
        return await capture(PageRankCheckpoint, self)

    async def restore(self, checkpoint: PageRankCheckpoint) -> None:
        """Continue from `checkpoint`.

        Raises `InvalidCheckpoint` if it is of another graph or damping, or if its ranks are none.
        """
        require_fit(checkpoint, PageRankCheckpoint, self, self.setup)
        ranks = on_host(checkpoint.ranks)
        require_sound(bool(np.all(ranks >= 0)), "a rank is negative, or no number", "ranks")
        total = float(ranks.sum())
        require_sound(abs(total - 1) < TOLERANCE, f"the ranks are {total} together, not 1", "ranks")
        await reinstate(checkpoint, self)

    def checkpoint_size_estimate(self) -> int:
        """Return the size of a checkpoint's arrays in bytes."""
        return 8 * (len(self._numbers) + 1)

    def health_check(self) -> HealthStatus:
        """Say whether the ranks are 1 together."""
        total = float(self._target.fetch(self.ranks).sum())
        well = abs(total - 1) < TOLERANCE
        return HealthStatus() if well else HealthStatus(False, f"the ranks are {total} together")

    def top(self, count: int = 5) -> list[tuple[int, float]]:
        """Return the nodes of the highest ranks, by their numbers in the file, and these ranks.

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
    """Return how many sums there are of n terms, of these sums, and so on to one.

    Odd numbers, for the terms of a sum are as far apart, and powers of two collide in caches.

    >>> _lengths(34), _lengths(1_000_000)
    ([1], [3907, 17, 1])
    """
    lengths: list[int] = []
    while n > 1 or not lengths:
        n = -(-n // ADDED) | 1
        lengths.append(n)
    return lengths
