"""A process that may die at any step, and power that may fail.

with process(work) as pid: ...                     # work() in a process of its own, which is waited for
status = outcome(work, "os.rename *=kill")         # how that process ended (see tinyo_runtime.failpoints)
points = noted(work, folder)                       # the steps with an effect that work() takes
"""

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tinyo_runtime import failpoints


@contextlib.contextmanager
def process(work: Callable[[], object], points: str = "") -> Iterator[int]:
    """Runs `work` with failpoints in a process of its own, and gives its id. In the end it is waited for."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setsid()
            failpoints.begin(points)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    try:
        yield pid
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _reap(pid)


def outcome(work: Callable[[], object], points: str = "") -> int:
    """Exit status of `work` in a process of its own; negative when a signal ended it (as in subprocess)."""
    with process(work, points):
        pass
    return _statuses.pop()


def noted(work: Callable[[], object], below: Path) -> list[str]:
    """The names of all points that `work` reaches below a folder, in their order."""
    with tempfile.NamedTemporaryFile() as notes:
        assert outcome(work, f"*{below}*=note:{notes.name}") == 0
        return Path(notes.name).read_text().splitlines()


_statuses: list[int] = []


def _reap(pid: int) -> None:
    """Waits for a process, and for those of its session that are ours now (the tests are a subreaper)."""
    _, status = os.waitpid(pid, 0)
    _statuses[:] = [os.waitstatus_to_exitcode(status)]
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-pid, 0)
