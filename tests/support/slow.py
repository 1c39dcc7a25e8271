"""A registry that gives as much as a test lets it: what it passes on stops in the middle until somebody says so.

with slow(host) as registry:                 # in front of a real one
    registry.held = 1000                     # bytes of each blob that come at once
    …
    registry.go_on()
"""

import select
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.registry import served

CHUNK = 1 << 14


@dataclass
class Slow:
    """What it does, and what it was asked for."""

    #: "127.0.0.1:PORT"
    address: str = ""
    #: Bytes of a blob that come before the rest has to wait; None: nothing waits.
    held: int | None = None
    #: Whether it is the same with manifests.
    manifests: bool = False
    #: Bytes a second of each blob, for looks at it by hand; 0: as fast as it can.
    rate: int = 0
    #: How often each path was asked for.
    asked: Counter[str] = field(default_factory=Counter)
    #: One for each download that waits, and one for each that waited until its client went away.
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gone: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    #: Who waits reads from the first; closing the second wakes all.
    _gate: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)

    def go_on(self) -> None:
        """What waits comes, and nothing waits any more."""
        self.held = None
        self._gate[1].close()

    def wait(self, connection: socket.socket) -> bool:
        """Returns when it may go on; False when the client went away."""
        self.waiting.release()
        ready, _, _ = select.select([self._gate[0], connection], [], [])
        if self._gate[0] in ready:
            return True
        self.gone.release()
        return False


@contextmanager
def slow(address: str) -> Iterator[Slow]:
    """In front of the registry at `address`."""
    state = Slow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked[self.path] += 1
            headers = {"Accept": ", ".join(self.headers.get_all("Accept", []))}
            if "Range" in self.headers:
                headers["Range"] = self.headers["Range"]
            try:
                response = urllib.request.urlopen(
                    urllib.request.Request(f"http://{address}{self.path}", headers=headers)
                )
            except urllib.error.HTTPError as error:
                response = error
            with response:
                self.send_response(response.status)
                for name in ("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest"):
                    if value := response.headers.get(name):
                        self.send_header(name, value)
                self.end_headers()
                sent = 0
                while data := response.read(CHUNK):
                    waits = "/blobs/" in self.path or state.manifests
                    if waits and state.held is not None and sent + len(data) > state.held:
                        self.wfile.write(data[: state.held - sent])
                        data = data[state.held - sent :]
                        if not state.wait(self.connection):
                            return
                    self.wfile.write(data)
                    sent += len(data)
                    if state.rate:
                        time.sleep(len(data) / state.rate)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with served(Handler) as state.address:
        try:
            yield state
        finally:
            state.go_on()
            state._gate[0].close()
