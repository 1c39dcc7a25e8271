"""Coverage of the core, as a part of what pytest reports at its end.

Under `coverage run -m pytest` the processes that the tests start are measured too: by coverage itself, and
those that run confined by `confined_lines`. Below the limit the run fails.
"""

import io
from collections.abc import Iterator

import coverage
import pytest

from scripts.budget import core
from tests.support import confined_lines

report = io.StringIO()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """After the last test, and before pytest decides how it all went."""
    yield
    measured = coverage.Coverage.current()
    if measured is None or session.config.option.collectonly:
        return
    measured.stop()
    measured.save()
    confined_lines.save()
    combined = coverage.Coverage(plugins=[])
    combined.combine(keep=False)
    limit = combined.get_option("report:fail_under")
    total = combined.report(include=[str(path) for path in core().values()], file=report)
    assert isinstance(limit, float | int)
    if total < limit:
        report.write(f"coverage of the core is {total:.1f} %, and must be {limit} %\n")
        session.testsfailed += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows the report above pytest's closing line."""
    if report.getvalue():
        terminalreporter.section("coverage of the core")
        terminalreporter.write(report.getvalue())
