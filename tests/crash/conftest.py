"""How much was tried, in the summary of a run; the tests note it as properties."""

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tried = Counter[str]()
    for report in terminalreporter.getreports("passed"):
        tried.update({what: n for what, n in report.user_properties if type(n) is int})
    for what, number in sorted(tried.items()):
        terminalreporter.write_line(f"{number:,} {what}")
