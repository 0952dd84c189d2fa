"""Hypothesis profiles: 200 examples by default, 10,000 in `nox -s deep`; the kit's likewise.

And what exhaustive tests note as a property, how much they tried, is added up in the summary.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

from checkpointable.testing import KernelTests

# Numba's threads wait for each other asleep: on cores that other tests want, too, spinning takes
# three times as long. Read when their library is loaded, here and in each process from here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile("default", max_examples=200, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("deep", max_examples=10_000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

if os.environ.get("HYPOTHESIS_PROFILE") == "deep":
    KernelTests.settings = settings(KernelTests.settings, max_examples=500, stateful_step_count=50)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tried = Counter[str]()
    for report in terminalreporter.getreports("passed"):
        tried.update({what: n for what, n in report.user_properties if type(n) is int})
    for what, number in sorted(tried.items()):
        terminalreporter.write_line(f"{number:,} {what}")
