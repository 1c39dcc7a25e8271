"""Coverage of the services, of their core and of all, as a part of what pytest reports at its end.

Under `coverage run -m pytest` the processes that the tests start are measured too: by coverage itself, and
those that run confined by `confined_lines`. Below the limit the run fails.
"""

import io
from collections.abc import Iterator

import coverage
import pytest

from scripts.budget import core, modules
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
    assert isinstance(limit, float | int)
    for what, counted in (("the core", core()), ("all", modules())):
        table = report if what == "all" else io.StringIO()
        total = combined.report(include=[str(path) for path in counted.values()], file=table)
        report.write(f"coverage of {what} is {total:.1f} %, and must be {limit} %\n")
        session.testsfailed += total < limit


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows the report above pytest's closing line."""
    if report.getvalue():
        terminalreporter.section("coverage")
        terminalreporter.write(report.getvalue())
