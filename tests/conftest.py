"""Hypothesis profiles: 200 examples by default, 10,000 in `nox -s deep`; the kit's likewise.

Temporary files go to a directory that is deleted at the end of the session. The counts that
exhaustive tests record as properties are added up in the summary.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from checkpointable.testing import KernelTests

# Numba's threads sleep while they wait for each other: other tests need the cores, and spinning
# takes three times as long. The variable is read when OpenMP is loaded, in child processes too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile("default", max_examples=200, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("deep", max_examples=10_000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

if os.environ.get("HYPOTHESIS_PROFILE") == "deep":
    KernelTests.settings = settings(KernelTests.settings, max_examples=500, stateful_step_count=50)


_LEFT_BY_MPICH = [("/tmp", "hydra_hwloc_xmlfile_*"), ("/dev/shm", "mpich_shm_*")]
"""What ranks and their launcher leave behind when a test kills them; TMPDIR does not move it."""

_STARTED = time.time()


@pytest.fixture(scope="session", autouse=True)
def temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep all temporary files, of child processes too, in one directory, and delete it."""
    tmp_path_factory.getbasetemp()  # pytest's own directory stays where it is
    directory = tempfile.TemporaryDirectory(prefix="checkpointable-tests-")
    with directory as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o755)  # some tests are run as another user
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return  # other workers may still run
    for folder, pattern in _LEFT_BY_MPICH:
        for path in Path(folder).glob(pattern):
            with suppress(OSError):
                if path.stat().st_uid == os.getuid() and path.stat().st_mtime >= _STARTED:
                    path.unlink()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tried = Counter[str]()
    for report in terminalreporter.getreports("passed"):
        tried.update({what: n for what, n in report.user_properties if type(n) is int})
    for what, number in sorted(tried.items()):
        terminalreporter.write_line(f"{number:,} {what}")
