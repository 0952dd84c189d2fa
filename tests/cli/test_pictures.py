"""Arrays as pictures, in the terminal and in a file."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import save_file
from checkpointable.cli.view.pictures import Picture, pictures, sketched
from checkpointable.cli.view.plot import plot
from checkpointable.files import opened_file
from tests.cli.common import shot


def seen(path: Path, array: Any, height: int, width: int, **more: bool) -> list[Picture]:
    path.unlink(missing_ok=True)
    save_file(shot(1, array), path)
    with opened_file(path) as opened:
        return pictures(opened, opened.header.arrays["field"], height, width, **more)


shapes = st.lists(st.integers(1, 12), min_size=1, max_size=2).map(tuple)


@given(shapes, st.integers(1, 8), st.integers(1, 8), st.randoms(use_true_random=False))
def test_cells_have_what_they_cover(
    tmp_path: Path, shape: tuple[int, ...], height: int, width: int, random: Any
) -> None:
    array = np.array([random.choice([0.0, 1.5, -3.0, np.nan]) for _ in range(math.prod(shape))])
    (picture,) = seen(tmp_path / "a", array.reshape(shape), height, width)
    rows, columns = (*shape, 1)[:2]
    tall, across = picture.mean.shape
    assert (tall, across) == (min(rows, height if len(shape) > 1 else width), min(columns, width))
    covered = array.reshape(rows, columns)
    for i in range(tall):
        for j in range(across):
            mine = [r for r in range(rows) if r * tall // rows == i]
            own = [c for c in range(columns) if c * across // columns == j]
            part = covered[np.ix_(mine, own)]
            known = part[~np.isnan(part)]
            assert bool(picture.nans[i, j]) == (known.size < part.size)
            if known.size:
                assert picture.mean[i, j] == pytest.approx(known.mean())
                assert (picture.low[i, j], picture.high[i, j]) == (known.min(), known.max())
            else:
                assert np.isnan(picture.mean[i, j])


def test_many_chunks_of_rows_give_the_array(tmp_path: Path) -> None:
    array = np.random.default_rng(3).normal(size=(1100, 1000))  # 8.4 MiB
    (picture,) = seen(tmp_path / "a", array, 2000, 2000)
    assert np.array_equal(picture.mean, array)


def test_a_cube_is_cut_in_its_middle(tmp_path: Path) -> None:
    cube = np.arange(5 * 6 * 7).reshape(5, 6, 7)
    result = seen(tmp_path / "a", cube, 9, 9, every_axis=True)
    expected = [cube[2], cube[:, 3], cube[:, :, 3]]
    assert all(np.array_equal(a.mean, b) for a, b in zip(result, expected, strict=True))
    assert [one.part for one in result] == ["[2, :, :]", "[:, 3, :]", "[:, :, 3]"]


def test_of_more_axes_it_is_the_middle_of_the_first(tmp_path: Path) -> None:
    array = np.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6)
    (picture,) = seen(tmp_path / "a", array, 9, 9)
    assert np.array_equal(picture.mean, array[1, 2])
    assert len(seen(tmp_path / "a", array, 9, 9, every_axis=True)) == 3


def test_a_structured_array_has_a_picture_for_each_field(tmp_path: Path) -> None:
    dtype = [("x", "f4"), ("name", "S3"), ("inner", [("id", "u2")])]
    array = np.zeros(4, dtype)
    array["inner"]["id"] = [1, 2, 3, 4]
    result = seen(tmp_path / "a", array, 9, 9)
    assert [one.part for one in result] == [".x", ".inner.id"]
    assert result[1].mean[:, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "array", [np.zeros(0), np.zeros(()), np.array(["a"]), np.zeros(2, "M8[s]")]
)
def test_what_has_no_numbers_in_a_row_has_no_picture(tmp_path: Path, array: Any) -> None:
    assert seen(tmp_path / "a", array, 9, 9) == []


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1.7e308, 0.0])
def test_any_number_can_be_drawn(tmp_path: Path, value: float) -> None:
    for shape in (3, (3, 3)):
        for picture in seen(tmp_path / "a", np.full(shape, value), 9, 9):
            sketched(picture)
            plot(tmp_path / "plot.png", "any", [("a", picture)])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_no_name_is_mathematics_to_matplotlib(tmp_path: Path) -> None:
    (picture,) = seen(tmp_path / "a", np.arange(3), 9, 9)
    plot(tmp_path / "out.png", r"$\frac{$ \x1b[2J 上", [(r"$\evil{$", picture)])
    assert (tmp_path / "out.png").exists()
