"""The benchmark of a real device at tiny sizes in Numba's simulator, where it measures nothing."""

import os
import subprocess
import sys
from pathlib import Path

FIGURES = (
    *("stall, 32 KiB", "digest, 32 KiB", "stall, 128 KiB", "digest, 128 KiB", "device copy"),
    *("device read", "full save to host memory", "pinned to host", "full save to a file"),
    *("stall, 1,000 arrays", "without a column", "stall of the first save", "held after a save"),
    *(
        "held after a release",
        "packed, transposed",
        "4,096 pieces",
        "stall, pinned",
        "stall, sliced",
        "wave, 16 x 16",
        "ising on",
    ),
    *("file write", "delta, 1%", "restore, verified", "slowdown of a stencil"),
    "torch.distributed.checkpoint async_save",
)


def benchmark(folder: Path, *arguments: str, simulated: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--results", str(folder), *arguments]
    return subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": simulated, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_smoke_test_names_every_figure_and_keeps_none(tmp_path: Path) -> None:
    ended = benchmark(tmp_path, "--smoke", simulated="1")
    assert ended.returncode == 0, ended.stderr
    assert "the figures mean nothing" in ended.stdout
    assert [name for name in FIGURES if name not in ended.stdout] == []
    assert not [*tmp_path.iterdir()]


def test_without_a_device_one_line_reports_it(tmp_path: Path) -> None:
    for simulated in ("0", "1"):
        ended = benchmark(tmp_path, simulated=simulated)
        assert ended.returncode == 1
        assert ended.stdout == ""
        assert ended.stderr.startswith("nothing is measured: ")
        assert ended.stderr.count("\n") == 1
