"""The ranks of the nodes of a graph: `kernel`, `graph` (its file), `programs` (device code)."""

from checkpointable.kernels.pagerank.kernel import (
    KARATE,
    PageRank,
    PageRankCheckpoint,
    PageRankSetup,
)

__all__ = ["KARATE", "PageRank", "PageRankCheckpoint", "PageRankSetup"]
