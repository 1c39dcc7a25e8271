"""What makes a start fast: a process that waits for the next container, made while there is nothing else to do."""

import contextlib
import gc
import os
import select
import sys
from collections.abc import Callable

from tinyo_runtime.spawner.process import Process

#: Milliseconds without anything to do after which it is made: whoever starts a container has more to do then,
#: and there are but so many processors.
IDLE = 3


class Ready:
    """At most one process; `make` clones it."""

    def __init__(self, make: Callable[[], Process]) -> None:
        # Every child shares our memory as long as nobody writes to it, and a collection of garbage would.
        gc.disable()
        gc.freeze()
        self._make = make
        self._process: Process | None = None
        #: The one before, which may still be on its way.
        self._taken: Process | None = None
        self._wanted = "ready" in sys.argv[2:]
        self._may_fail = False

    @property
    def patience(self) -> int | None:
        """Milliseconds to wait for other things; None: for ever."""
        entering = self._taken is not None and self._taken.status >= 0
        return IDLE if self._wanted and not (self._process or self._may_fail or entering) else None

    def make(self) -> None:
        """A good moment. If it fails, the next container's own try says why."""
        try:
            self._process = self._make()
        except OSError as error:
            self._may_fail = True
            print(f"spawner: could not get ready: {error}", file=sys.stderr, flush=True)

    def take(self) -> Process | None:
        """The process, if there is one that did not fail."""
        process, self._process, self._may_fail = self._process, None, False
        if process and select.select([process.status], [], [], 0)[0]:
            process.close()
            process = None
        self._taken = process
        return process

    def discard(self) -> None:
        """Nobody needs it: without a plan it ends."""
        if self._process:
            self._process.close()
            with contextlib.suppress(ChildProcessError):  # it was killed, and waited for, before
                os.waitid(os.P_PID, self._process.pid, os.WEXITED)
            self._process = None
