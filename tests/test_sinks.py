"""The events of a run: which come, in which order, and where they go."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from checkpointable import LocalStore, MemoryStore, Preempted, archive, every, last, run
from checkpointable.archive import entries, name_of
from checkpointable.events import (
    FILE,
    Event,
    FellBack,
    Finished,
    Pruned,
    Restored,
    Saved,
    Started,
    Stopped,
    Stopping,
    from_json,
)
from checkpointable.sinks import prometheus, to_file, to_log
from tests.archive.test_archive import damage
from tests.helpers.kernels import Counter
from tests.helpers.small_blocks import small_blocks
from tests.runner.test_delta_runs import Sweep
from tests.runner.test_signals import Signalled


def events_of(kernel: Any, store: Any, until: int, **options: Any) -> list[Event]:
    reported: list[Event] = []
    run(kernel, store, until, on_event=reported.append, **options)
    return reported


def test_a_run_tells_what_happens_to_it() -> None:
    store = MemoryStore()
    reported = events_of(Counter(), store, 30, save=every(steps=10), keep=last(2))
    assert [type(event) for event in reported] == [Started, Saved, Saved, Saved, Pruned, Finished]
    saved = [event for event in reported if isinstance(event, Saved)]
    assert [(s.step, s.name, s.kind, s.dirty) for s in saved] == [
        (step, name_of(step), "full", 1.0) for step in (10, 20, 30)
    ]
    assert reported[4] == Pruned((name_of(10),), time=reported[4].time)


def test_a_run_that_resumes_tells_from_what_and_what_it_passed_over() -> None:
    store = MemoryStore()
    run(Counter(), store, 20, save=every(steps=10))
    damage(store, name_of(20))
    reported = events_of(Counter(), store, 20)
    assert [type(event) for event in reported] == [FellBack, Restored, Saved, Finished]
    fell, restored = reported[:2]
    assert isinstance(fell, FellBack)
    assert isinstance(restored, Restored)
    assert (fell.step, fell.name, restored.step, restored.name) == (
        20, name_of(20), 10, name_of(10),
    )  # fmt: skip
    assert fell.why == "the header is not JSON as a checkpoint has it"


def test_a_run_that_is_stopped_tells_why_and_what_is_saved() -> None:
    reported: list[Event] = []
    with pytest.raises(Preempted):
        run(Signalled(), MemoryStore(), 10**6, on_event=reported.append)
    assert [type(event) for event in reported] == [Started, Stopping, Saved, Stopped]


def test_a_delta_tells_its_share() -> None:
    store = MemoryStore()
    with small_blocks(64):
        reported = events_of(Sweep(), store, 40, save=every(steps=10), delta=True, keep=last(9))
    first, *others = [event for event in reported if isinstance(event, Saved)]
    assert (first.kind, first.dirty) == ("full", 1.0)
    for event in others:
        assert event.kind == "delta"
        entry = next(e for e in entries(store) if e.step == event.step)
        assert event.bytes == entry.size
        with small_blocks(64):
            full = archive.size_of_full(archive.read_header(store, entry.name))
        assert event.dirty == entry.size / full


# --- to a file -----------------------------------------------------------------------------------


def lines(store: Path) -> list[Event | None]:
    return [from_json(line) for line in (store / FILE).read_bytes().splitlines()]


def test_a_directory_has_them_from_run_to_run(tmp_path: Path) -> None:
    reported = events_of(Counter(), tmp_path, 20, save=every(steps=10))
    reported += events_of(Counter(), tmp_path, 30)
    assert lines(tmp_path) == reported
    assert [e.step for e in entries(LocalStore(tmp_path))] == [10, 20, 30]


def test_a_line_that_was_cut_short_takes_no_other_with_it(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"event":"Sav')
    event = Started(0, 5)
    to_file(tmp_path)(event)
    assert lines(tmp_path) == [None, event]


def test_each_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(file: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    to_file(tmp_path)(Started(0, 5))
    (line,) = written
    assert line.endswith(b"}\n")


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    assert run(Counter(), tmp_path, 5).step == 5


def test_it_writes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / FILE).symlink_to(tmp_path / "other")
    run(Counter(), tmp_path, 5)
    assert (tmp_path / "other").read_text() == "mine"


# --- to the log, and to Prometheus ---------------------------------------------------------------


def test_the_log_has_them_and_warns_of_what_went_wrong(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    run(Counter(), store, 20, save=every(steps=10))
    damage(store, name_of(20))
    with caplog.at_level(logging.INFO, "checkpointable"):
        run(Counter(), store, 20)
    result = [(r.name, r.levelname, r.getMessage().split()[0]) for r in caplog.records]
    assert result == [
        ("checkpointable", "WARNING", "FellBack"),
        ("checkpointable", "INFO", "Restored"),
        ("checkpointable", "INFO", "Saved"),
        ("checkpointable", "INFO", "Finished"),
    ]


def test_where_nobody_asks_for_a_log_there_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    handlers, logging.root.handlers = logging.root.handlers, []  # pytest's own
    try:
        to_log()(FellBack(1, "a", "damaged"))
    finally:
        logging.root.handlers = handlers
    assert capfd.readouterr().err == ""


def test_prometheus_has_the_figures() -> None:
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    run(Counter(), MemoryStore(), 30, save=every(steps=10), on_event=prometheus(registry))
    for name, labels, value in (
        ("checkpointable_events_total", {"event": "Saved"}, 3),
        ("checkpointable_step", {}, 30),
        ("checkpointable_save_seconds_count", {"kind": "full"}, 3),
        ("checkpointable_stall_seconds_count", {}, 3),
    ):
        assert registry.get_sample_value(name, labels) == value
    assert registry.get_sample_value("checkpointable_saved_bytes_total", {"kind": "full"}) > 0
    assert registry.get_sample_value("checkpointable_saved_timestamp_seconds") > 1.7e9


def test_without_prometheus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'checkpointable\[prometheus\]'"):
        prometheus()
