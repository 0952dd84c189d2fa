"""The ranks against networkx's, and the edges against the text of a file."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import networkx
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import InvalidCheckpoint, InvalidKernel
from checkpointable.kernels.pagerank import KARATE, PageRank
from checkpointable.kernels.pagerank.graph import Graph, _graph, read_graph
from tests.kernels.kernel_checks import assert_same, restore, run_in_pieces, snapshot

Write = Callable[..., Path]
pairs = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: Any, name: str = "edges.txt") -> Path:
        path = tmp_path / name
        if isinstance(text, str):
            text = text.encode()
        elif not isinstance(text, bytes):
            text = "".join(f"{a}\t{b}\n" for a, b in text).encode()
        path.write_bytes(text)
        return path

    return write


def random_edges(nodes: int, edges: int, seed: int) -> Any:
    """Edges between few hubs and many other nodes, some of them dangling; numbered with gaps."""
    rng = np.random.default_rng(seed)
    return 7 * (nodes * rng.random((edges, 2)) ** (3, 2)).astype(np.int64)


def expected(edges: Any, damping: float = 0.85) -> dict[int, float]:
    graph = networkx.DiGraph()
    graph.add_edges_from((int(a), int(b)) for a, b in edges)
    ranks = networkx.pagerank(graph, alpha=damping, tol=1e-15, max_iter=10_000)
    return {int(node): float(rank) for node, rank in ranks.items()}


def ranked(ranking: PageRank) -> dict[int, float]:
    return dict(ranking.top(10**9))


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.85])
@pytest.mark.parametrize(("nodes", "count"), [(2, 3), (50, 100), (300, 900), (20_000, 60_000)])
def test_the_ranks_are_those_of_networkx(
    write: Write, nodes: int, count: int, damping: float
) -> None:
    edges = random_edges(nodes, count, seed=nodes)
    if nodes > 2:
        assert set(edges[:, 1]) - set(edges[:, 0]), "no node dangles"
        assert (edges[:, 0] == edges[:, 1]).any(), "no node has an edge to itself"
        assert len(np.unique(edges, axis=0)) < len(edges), "no edge is given twice"
    ranking = PageRank(write(edges), damping=damping, device="cpu")
    ranking.advance(ranking.total_steps)
    ranks = ranked(ranking)
    assert ranks == pytest.approx(expected(edges, damping), rel=0, abs=1e-10)
    assert math.fsum(ranks.values()) == pytest.approx(1, abs=1e-12)


def test_the_included_graph_is_zacharys() -> None:
    club = networkx.karate_club_graph()
    edges = {(a + 1, b + 1) for pair in club.edges for a, b in (pair, pair[::-1])}
    lines = [line for line in KARATE.read_text().splitlines() if not line.startswith("#")]
    assert sorted(edges) == [tuple(map(int, line.split())) for line in lines]
    ranking = PageRank(device="cpu")
    ranking.advance(200)
    assert ranked(ranking) == pytest.approx(expected(edges), rel=0, abs=1e-10)


def test_one_step_is_one_iteration_of_the_definition(write: Write) -> None:
    # 1 -> 2, 1 -> 3, 2 -> 3, 3 dangles; every term by hand.
    ranking = PageRank(write("1 2\n1 3\n2 3\n"), damping=0.5, device="cpu")
    assert ranked(ranking) == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3}, abs=1e-15)
    assert ranking.summary()["residual"] == math.inf
    ranking.advance(1)
    to_all = 0.5 / 3 + 0.5 * (1 / 3) / 3
    first = {1: to_all, 2: to_all + 0.5 / 6, 3: to_all + 0.5 / 6 + 0.5 / 3}
    assert ranked(ranking) == pytest.approx(first, abs=1e-15)
    changes = sum(abs(rank - 1 / 3) for rank in first.values())
    assert ranking.summary()["residual"] == pytest.approx(changes, abs=1e-15)


def test_the_residual_bounds_the_error_as_the_docstring_says(write: Write) -> None:
    edges = random_edges(300, 900, seed=4)
    limit, ranking = expected(edges), PageRank(write(edges), device="cpu")
    while ranking.step < 100:
        ranking.advance(5)
        ranks = ranked(ranking)
        error = sum(abs(ranks[node] - rank) for node, rank in limit.items())
        assert error <= 2 * 0.85**ranking.step + 1e-12
        assert error <= ranking.summary()["residual"] * 0.85 / 0.15 + 1e-12


def test_sums_have_the_order_that_is_documented() -> None:
    from checkpointable.kernels.pagerank.programs import ADD

    values = np.random.default_rng(1).standard_normal(1000) * 10.0 ** np.arange(1000) ** 0.5
    sums = np.zeros(7)
    ADD.loop(values, sums)
    assert sums.tolist() == [sum(values[k::7].tolist(), 0.0) for k in range(7)]


def test_line_order_repeats_comments_and_name_do_not_matter(write: Write) -> None:
    edges = random_edges(100, 300, seed=2)
    one = PageRank(write(edges), device="cpu")
    shuffled = "".join(f"  {a}  {b} \r\n" for a, b in [*edges[::-1], *edges[:9]])
    other = PageRank(write("# FromNodeId\tToNodeId\n\n" + shuffled, "other.txt"), device="cpu")
    one.advance(10)
    restore(other, snapshot(one))
    one.advance(10)
    other.advance(10)
    assert_same(snapshot(one), snapshot(other))


@given(pairs)
def test_the_arrays_hold_the_edges(edges: list[tuple[int, int]]) -> None:
    graph = _graph(np.array(edges, np.int64))
    numbers, sources, offsets = (
        values.tolist() for values in (graph.numbers, graph.sources, graph.offsets)
    )
    assert numbers == sorted({end for edge in edges for end in edge})
    kept = [
        (numbers[source], number)
        for number, begin, end in zip(numbers, offsets[:-1], offsets[1:], strict=True)
        for source in sources[begin:end]
    ]
    assert kept == sorted(set(edges), key=lambda edge: (edge[1], edge[0]))
    leaving = [sum(source == number for source, _ in kept) for number in numbers]
    assert graph.degrees.tolist() == leaving
    assert (offsets[0], offsets[-1]) == (0, len(sources))


def test_the_digest_is_that_of_the_arrays(write: Write) -> None:
    graph = read_graph(write("5 3\n3 5\n5 9\n"))
    numbers = np.array([3, 5, 9], "<i8").tobytes()
    arrays = np.array([0, 1, 2, 3], "<i8").tobytes() + np.array([1, 0, 1], "<i4").tobytes()
    assert graph.identity().digest == xxhash.xxh3_128_hexdigest(numbers + arrays)
    assert (graph.identity().nodes, graph.identity().edges) == (3, 3)


@given(pairs, pairs)
def test_graphs_are_the_same_if_and_only_if_their_edges_are(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    def identity(edges: list[tuple[int, int]]) -> Any:
        graph: Graph = _graph(np.array(edges, np.int64))
        return graph.identity()

    assert (identity(one) == identity(other)) == (set(one) == set(other))
    assert identity(one[::-1]) == identity(one)


@pytest.mark.parametrize("text", ["1 2\n2 4\n", "1 2\n2 3\n3 1\n", "1 2\n3 2\n"])
def test_a_checkpoint_of_another_graph_is_refused(write: Write, text: str) -> None:
    ranking = PageRank(write("1 2\n2 3\n"), device="cpu")
    ranking.advance(2)
    other = PageRank(write(text, "other.txt"), device="cpu")
    before = snapshot(other)
    with pytest.raises(InvalidCheckpoint, match=r"graph=GraphIdentity\(.*\n.*where: setup.graph"):
        restore(other, snapshot(ranking))
    assert_same(snapshot(other), before)


def test_the_checkpoint_does_not_hold_the_graph(write: Write) -> None:
    edges = random_edges(100, 5000, seed=1)
    saved = snapshot(PageRank(write(edges), device="cpu"))
    arrays = [
        value for value in attrs.asdict(saved, recurse=False).values() if hasattr(value, "nbytes")
    ]
    assert sum(array.nbytes for array in arrays) == 8 * (saved.setup.graph.nodes + 1)


def test_stopped_and_resumed_anywhere(write: Write) -> None:
    path = write(random_edges(600, 2000, seed=3))
    whole = PageRank(path, device="cpu")
    whole.advance(12)
    pieces = run_in_pieces(lambda: PageRank(path, device="cpu"), 12, [1, 2, 7])
    assert_same(snapshot(whole), snapshot(pieces))


@pytest.mark.parametrize(
    ("bad", "what"),
    [(-0.1, "negative or NaN"), (math.nan, "negative or NaN"), (0.9, "not 1")],
)
def test_invalid_ranks_are_refused(bad: float, what: str) -> None:
    ranking = PageRank(device="cpu")
    before = snapshot(ranking)
    ranks = np.array(before.ranks)
    ranks[5] = bad
    with pytest.raises(InvalidCheckpoint, match=what):
        restore(ranking, attrs.evolve(before, ranks=ranks))
    assert_same(snapshot(ranking), before)


def test_health() -> None:
    ranking = PageRank(device="cpu")
    assert ranking.health_check().healthy
    ranking.ranks[3] = math.nan
    assert ranking.health_check().reason == "the sum of the ranks is nan"


def test_what_the_summary_shows() -> None:
    ranking = PageRank(device="cpu")
    ranking.advance(200)
    shown = ranking.summary()
    assert (shown["nodes"], shown["edges"]) == (34, 156)
    assert shown["residual"] < 1e-14
    assert [key for key in shown if key.startswith("rank of")] == [
        f"rank of node {number}" for number in (34, 1, 33, 3, 2)
    ]


def test_equal_ranks_are_listed_by_number(write: Write) -> None:
    couples = PageRank(write([(i, i + 1) for i in range(0, 500, 2)]), device="cpu")
    couples.advance(3)
    assert [number for number, _ in couples.top(500)] == [*range(1, 500, 2), *range(0, 500, 2)]


@pytest.mark.parametrize(
    "line",
    ["3", "3 4 5", "3 -4", "3 +4", "3 4.0", "a b", "3,4", "1_0 2", "3 9223372036854775808",
     "3 " + 5000 * "9", "3 4 # why", "³ 4", "\xff 4", "0x3 4"],
)  # fmt: skip
def test_a_malformed_line_is_refused_by_its_number(write: Write, line: str) -> None:
    for text in (line.encode("latin-1", "replace"), line.encode()):
        path = write(b"# two edges, then\n1 2\n\n2 1\n" + text + b"\n1 3\n")
        with pytest.raises(InvalidKernel, match=r"5 is not an edge: .*\n.*where: .*edges.txt:5"):
            PageRank(path, device="cpu")


def test_the_largest_number_is_read(write: Write) -> None:
    assert read_graph(write("0 9223372036854775807")).numbers.tolist() == [0, 2**63 - 1]


def test_files_and_options_that_make_no_sense(tmp_path: Path, write: Write) -> None:
    with pytest.raises(InvalidKernel, match="No such file"):
        PageRank(tmp_path / "absent", device="cpu")
    with pytest.raises(InvalidKernel, match="cannot be read"):
        PageRank(tmp_path, device="cpu")
    with pytest.raises(InvalidKernel, match="no edge"):
        PageRank(write("# nothing\n\n"), device="cpu")
    for option, value in (
        ("damping", 1.0), ("damping", -0.1), ("damping", math.nan), ("iterations", -1),
    ):  # fmt: skip
        wrong: Any = {option: value}
        with pytest.raises(InvalidKernel, match=f"where: {option}"):
            PageRank(device="cpu", **wrong)
