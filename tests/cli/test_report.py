"""The report: what it tells, what it lets through to the page, and the page in a real browser."""

import html.parser
import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from checkpointable import Array, LocalStore, archive, events
from checkpointable.archive import Entry
from checkpointable.cli import main
from checkpointable.cli.report._data import (
    File,
    Frame,
    read_events,
    read_files,
    read_frames,
    reason_kept,
)
from checkpointable.cli.report._page import page
from checkpointable.cli.report._png import coloured, png
from checkpointable.cli.report._timeline import timeline
from checkpointable.cli.view.pictures import Picture
from checkpointable.events import (
    Event,
    FellBack,
    Finished,
    GaveUp,
    Pruned,
    Quarantined,
    Restarted,
    Restored,
    Saved,
    Skipped,
    Stalled,
    Started,
    Stopped,
    Stopping,
)
from tests.test_events import any_event

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@attrs.frozen
class Shot:
    step: int
    field: Array[Any]
    small: Array[Any]


def save(store: LocalStore, step: int, value: float = 0.0, base: str | None = None) -> str:
    field = np.full((3, 1 << 18), value, np.float32)  # three blocks
    field[0] = 0
    return archive.save(store, Shot(step, field, np.zeros(3)), step, base=base).name


def damage(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def everything(text: str) -> list[Event]:
    """One event of each kind, all that is text in them this text."""
    return [
        Started(0, 99, time=1.0),
        Saved(1, text, "full", 10, 1.0, 0.2, 0.1, 0.0, time=2.0),
        Saved(2, text, text, 10, 0.5, 0.2, 0.1, 0.0, 0.1, time=3.0),
        Skipped(2, text, time=4.0),
        Stalled(2, 9.0, 5.0, time=5.0),
        Restarted(1, 2, text, 1.0, time=6.0),
        FellBack(2, text, text, time=7.0),
        Quarantined(2, text, text, time=8.0),
        Restored(1, 99, text, 0.1, time=9.0),
        Pruned((text, text), time=10.0),
        Stopping(4, 15, text, time=11.0),
        Stopped(4, text, time=12.0),
        Restored(4, 99, text, 0.1, time=13.0),
        Finished(99, 3.0, 2, time=14.0),
        GaveUp(99, 3, text, time=15.0),
    ]


def frame(step: int, line: bool = False) -> Frame:
    mean = np.arange(4.0).reshape(4, 1) if line else np.arange(6.0).reshape(2, 3)
    picture = Picture("", mean, mean, mean, np.isnan(mean), mean.shape, line)
    return Frame(step, picture)


class Tags(html.parser.HTMLParser):
    """The tags of a page with the names of their attributes, what is loaded, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.loaded: list[str] = []
        self.said = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.loaded += [v or "" for name, v in attrs if name in ("src", "href", "data")]
        self.said += "".join(v or "" for name, v in attrs if name == "title")

    def handle_data(self, data: str) -> None:
        self.said += data


def whole(text: str) -> str:
    entry = Entry(7, 0, "step-000000000007.safetensors", 10, 1.0)
    files = [File(entry, error=text), File(entry, seal="ab", dirty=0.5, continues=(text,))]
    place = text.encode("utf-8", "ignore").decode().replace("/", "_").replace("\0", "_")
    return page(f"/a{place}", files, everything(text), text, [frame(1)])


HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'onload='x", "</style><b>",
    "</title><script>", "<!--", "]]>", "&lt;b&gt;", "javascript:alert(1)", "\x1b[2J\u202e\ud800\0",
]  # fmt: skip


@given(st.text(min_size=1) | st.sampled_from(HOSTILE))
def test_no_text_becomes_markup(text: str) -> None:
    assert Tags(whole(text)).tags == Tags(whole("plain")).tags


def test_text_is_told_as_it_is() -> None:
    said = Tags(whole('<b> & "c"')).said
    assert said.count('<b> & "c"') > 10


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    result = Tags(whole("https://example.org/x.js"))
    assert result.loaded
    assert all(address.startswith("data:image/png;base64,") for address in result.loaded)
    assert {tag for tag, _ in result.tags}.isdisjoint(
        {"script", "link", "iframe", "object", "form"}
    )
    assert "url(" not in whole("plain")


@given(st.lists(any_event.filter(lambda e: type(e) is not Pruned), max_size=20))
def test_a_timeline_has_all_its_marks_within(happened: list[Event]) -> None:
    sound = sorted((e for e in happened if 0 <= e.time < 2e11), key=lambda e: e.time)
    for place in re.findall(r"left:([\d.]+)%", timeline(sound, str)):
        assert 0 <= float(place) <= 100


@pytest.mark.parametrize(
    ("happened", "kinds"),
    [
        ([Started(0, 9, time=1), Finished(9, 1.0, 1, time=2)], ["ok"]),
        ([Started(0, 9, time=1), Stopped(5, "a", time=2), Restored(5, 9, "a", 0, time=3)],
         ["warn", "quiet"]),
        ([Started(0, 9, time=1), Restarted(1, 0, "c", 1, time=3), Started(0, 9, time=4)],
         ["bad", "quiet"]),
    ],
)  # fmt: skip
def test_a_run_is_coloured_by_its_end(happened: list[Event], kinds: list[str]) -> None:
    assert re.findall(r'class="run (\w+)"', timeline(happened, str)) == kinds


def test_of_many_saves_a_bar_is_the_highest() -> None:
    saves = [
        Saved(i, "a", "full", 10, 1.0, 1.0, 5.0 if i == 777 else 0.1, 0.0, time=float(i))
        for i in range(2000)
    ]
    text = page("run", [], [*saves], "", [])
    assert 'title="step 777: 5 s of 1 s"' in text
    assert len(text) < 300_000


# --- what is read --------------------------------------------------------------------------------


def test_events_come_by_time(tmp_path: Path) -> None:
    happened = everything("x")
    lines = [events.to_json(event) for event in reversed(happened)]
    (tmp_path / events.FILE).write_bytes(b"".join(lines))
    assert read_events(tmp_path) == happened


@given(st.binary() | st.lists(any_event.map(events.to_json)).map(b"".join))
def test_no_log_raises(tmp_path: Path, text: bytes) -> None:
    (tmp_path / events.FILE).write_bytes(text)
    page("run", [], read_events(tmp_path), "", [])


@pytest.mark.parametrize(
    "change",
    [
        {"step": "<b>"}, {"step": True}, {"step": None}, {"step": 2**63}, {"time": "now"},
        {"time": 1e30}, {"time": -1}, {"stall": []}, {"name": 3}, {"seconds": 1e300},
        {"slowdown": "x"},
    ],
)  # fmt: skip
def test_an_event_of_other_types_is_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    saved = orjson.loads(events.to_json(everything("x")[1]))
    (tmp_path / events.FILE).write_bytes(orjson.dumps(saved | change) + b"\n")
    assert read_events(tmp_path) == []


def test_a_log_that_is_a_pipe_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / events.FILE)
    assert read_events(tmp_path) == []


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "run")
    base = save(store, 10)
    save(store, 20, 2.0, base=save(store, 15, 1.0, base=base))
    save(store, 30, 3.0)
    return store


def test_files_say_what_continues_what(store: LocalStore) -> None:
    files = read_files(store, None)
    assert [(f.entry.step, f.dirty and round(f.dirty, 2)) for f in files] == [
        (10, 1.0), (15, 0.67), (20, 0.67), (30, 1.0),
    ]  # fmt: skip
    assert [reason_kept(file, files) for file in files] == [
        "continued by 15, 20",
        "kept by the run",
        "kept by the run",
        "the newest that is sound",
    ]


def test_of_a_damaged_file_it_is_told(store: LocalStore) -> None:
    damage(store.path / archive.name_of(30), 200)
    files = read_files(store, None)
    assert reason_kept(files[3], files).startswith("damaged: ")
    assert reason_kept(files[2], files) == "the newest that is sound"


def test_frames_are_of_the_largest_array(store: LocalStore) -> None:
    name, frames = read_frames(store, read_files(store, None), "", None)
    assert name == "field"
    assert [(f.step, f.picture.mean[2, 0]) for f in frames] == [(10, 0), (15, 1), (20, 2), (30, 3)]


def test_a_frame_that_is_damaged_is_left_out(store: LocalStore) -> None:
    damage(store.path / archive.name_of(30), 5000)
    _, frames = read_frames(store, read_files(store, None), "field", None)
    assert [f.step for f in frames] == [10, 15, 20]


def test_of_many_there_are_twelve_frames(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for step in range(30):
        archive.save(store, Shot(step, np.arange(3), np.zeros(1)), step)
    _, frames = read_frames(store, read_files(store, None), "", None)
    assert len(frames) == 12
    assert (frames[0].step, frames[-1].step) == (0, 29)


# --- pictures ------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_png_is_read_as_it_was_written(height: int, width: int, random: Any) -> None:
    colours = np.array(
        [random.randrange(256) for _ in range(height * width * 3)], np.uint8
    ).reshape(height, width, 3)
    result = imread(io.BytesIO(png(colours)), format="png")
    assert np.array_equal(np.rint(result * 255).astype(np.uint8), colours)


@given(st.lists(st.floats(), min_size=1), st.floats(allow_nan=False, allow_infinity=False),
       st.floats(allow_nan=False, allow_infinity=False))  # fmt: skip
def test_any_numbers_have_colours(values: list[float], low: float, high: float) -> None:
    assert coloured(np.array([values]), low, high).shape == (1, len(values), 3)


@pytest.mark.parametrize("line", [False, True])
def test_frames_of_any_numbers_can_be_drawn(line: bool) -> None:
    for value in (np.nan, np.inf, -np.inf, 1.7e308, 0.0):
        mean = np.full((4, 1 if line else 3), value)
        mean[0] = -1.7e308
        picture = Picture("", mean, mean, mean, np.isnan(mean), (4, mean.shape[1]), line)
        text = page("run", [], everything("x"), "a", [Frame(1, picture)])
        assert not re.search(r"[dML ](nan|inf)", text.partition("<section id=film>")[2])


# --- the command ---------------------------------------------------------------------------------


def test_report_writes_one_file(
    store: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.path / events.FILE).write_bytes(b"".join(map(events.to_json, everything("x"))))
    target = tmp_path / "report.html"
    target.write_text("older")
    assert main(["report", str(store.path), "-o", str(target)]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: 4 checkpoints, 15 events, ")
    assert target.read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run"]
    words = ["report", str(store.path), "-o", str(target), "--array", "small", "--json"]
    assert main(words) == 0
    reported = orjson.loads(capsys.readouterr().out)
    assert (reported["checkpoints"], reported["events"], reported["frames"]) == (4, 15, 4)
    assert "<h2>small over time</h2>" in target.read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none", "-o", "x.html"], 1, "no such directory"),
        (["empty", "-o", "x.html"], 1, "no checkpoints, and no events"),
        (["run", "-o", "no/x.html"], 1, "nothing is there"),
        (["run", "-o", "empty"], 1, "directory"),
        (["run", "-o", "x.html", "--array", "a"], 64, "there is no array 'a'; there are: field"),
        (["run"], 64, "Missing option"),
    ],
)
def test_report_refuses(
    store: LocalStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert main(["report", *words]) == code
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "run"]


# --- in a browser --------------------------------------------------------------------------------

ASK = """<!doctype html><iframe id=f src="report.html" style="width:WIDTHpx;height:900px;border:0">
</iframe><pre id=told></pre><script>
window.alert = () => { window.alerted = true };
document.getElementById("f").onload = event => {
  const inner = event.target.contentDocument, frame = event.target.contentWindow;
  frame.alert = window.alert;
  const images = [...inner.images];
  document.getElementById("told").textContent = JSON.stringify({
    width: inner.documentElement.clientWidth, needed: inner.documentElement.scrollWidth,
    images: images.length, shown: images.filter(i => i.complete && i.naturalWidth > 0).length,
    scripts: inner.scripts.length, loaded: frame.performance.getEntriesByType("resource")
      .filter(r => !r.name.startsWith("data:")).length,
    small: [...inner.querySelectorAll("td, th, p, span, figcaption, h3")]
      .filter(e => parseFloat(frame.getComputedStyle(e).fontSize) < 12).length,
    outside: [...inner.querySelectorAll("section, .tile, .chart, .lane, figure")]
      .filter(e => e.getBoundingClientRect().right > inner.documentElement.clientWidth).length,
    back: frame.getComputedStyle(inner.body).backgroundColor, alerted: !!window.alerted})};
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_in_a_browser(
    store: LocalStore, tmp_path: Path, width: int, dark: bool
) -> None:
    hostile = "<img src=x onerror=alert(1)>" + "w" * 200
    (store.path / events.FILE).write_bytes(b"".join(map(events.to_json, everything(hostile))))
    damage(store.path / archive.name_of(30), 200)
    assert main(["report", str(store.path), "-o", str(tmp_path / "report.html")]) == 0
    (tmp_path / "ask.html").write_text(ASK.replace("WIDTH", str(width)))
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--window-size=1600,1000", "--dump-dom", (tmp_path / "ask.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    (reported,) = re.findall(r'<pre id="told">(.*?)</pre>', done.stdout)
    result = orjson.loads(reported)
    back = "rgb(20, 23, 26)" if dark else "rgb(251, 251, 250)"
    assert result == {
        "width": width, "needed": width, "images": 4, "shown": 4, "scripts": 0, "loaded": 0,
        "small": 0, "outside": 0, "back": back, "alerted": False,
    }  # fmt: skip
