"""Tiny problems on the CPU and on CUDA, as functions, and as a program for Numba's simulator.

`NUMBA_ENABLE_CUDASIM=1 python -m tests.kernels.compare_devices` exits with 0 if they agree.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from checkpointable import Shard
from checkpointable.kernels.ising import Ising
from checkpointable.kernels.nbody import NBody
from checkpointable.kernels.pagerank import PageRank
from checkpointable.kernels.sketch import Sketch
from checkpointable.kernels.target import Device
from checkpointable.kernels.wave import Wave
from checkpointable.kernels.wave.mpi import WaveMpi
from tests.kernels.kernel_checks import assert_same, restore, snapshot

Make = Callable[[Device], Any]


NOISE = np.random.default_rng(1).standard_normal((2, 14, 14)).astype(np.float32)


def wave(device: Device) -> Wave:
    wave = Wave(model="uniform", n=14, period=1500.0, receivers=3, device=device)
    fields = {"pressure": NOISE[0], "pressure_before": NOISE[1]}
    restore(wave, attrs.evolve(snapshot(wave), **fields))
    return wave


def wave_mpi(device: Device) -> WaveMpi:
    wave = WaveMpi(model="uniform", n=14, period=1500.0, receivers=3, device=device)
    now, before = (Shard(noise, (14, 14), (0, 0)) for noise in NOISE)
    restore(wave, attrs.evolve(snapshot(wave), pressure=now, pressure_before=before))
    return wave


def ising(device: Device) -> Ising:
    return Ising(n=12, warmup=1, device=device)


def nbody(device: Device) -> NBody:
    return NBody(n=37, device=device)  # more than four of the simulator's tiles


def pageranks(folder: Path) -> Iterator[Make]:
    edges = np.random.default_rng(1).integers(0, 300, (700, 2))
    np.savetxt(folder / "edges.txt", edges, fmt="%d")
    yield lambda device: PageRank(device=device)
    yield lambda device: PageRank(folder / "edges.txt", device=device)


def sketches(folder: Path) -> Iterator[Make]:
    rng = np.random.default_rng(1)
    integers = rng.integers(-(2**63), 2**63 - 1, 40)
    floats = rng.standard_normal(40) * 10.0 ** rng.integers(-300, 300, 40)
    floats[:7] = [np.nan, -np.inf, 0.0, -0.0, 5e-324, -1e-310, 1.0]
    integers[:4] = [0, -1, -(2**63), 2**63 - 1]
    floats.astype("<f8").tofile(folder / "float64")
    integers.astype("<i8").tofile(folder / "int64")
    yield lambda device: Sketch(folder / "float64", batch=16, device=device)
    yield lambda device: Sketch(folder / "int64", dtype="int64", batch=16, device=device)


def compare(make: Make) -> None:
    """Assert that CUDA gives the CPU's bits, in a run that moves between the two."""
    host, device, moved = make("cpu"), make("cuda"), make("cuda")
    host.advance(2)
    device.advance(2)
    assert_same(snapshot(device), snapshot(host))
    restore(moved, snapshot(host))
    moved.advance(1)
    host.advance(1)
    assert_same(snapshot(moved), snapshot(host))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for make in (
            wave,
            wave_mpi,
            ising,
            nbody,
            *pageranks(Path(folder)),
            *sketches(Path(folder)),
        ):
            compare(make)


if __name__ == "__main__":
    main()
