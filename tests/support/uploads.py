"""A registry that takes images, in memory (OCI distribution, "Push"), and that may lie.

shelf = Shelf()
with served(taking(shelf)) as host:
    ...
assert shelf.asked == ["HEAD /v2/x/blobs/sha256:…", …]
"""

import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.images import digest

#: Answers a request itself and returns True, or leaves it to the honest registry.
Lie = Callable[["Taker"], bool]


@dataclass
class Shelf:
    """What a registry has got, and how."""

    #: By digest; all repositories share them.
    blobs: dict[str, bytes] = field(default_factory=dict)
    #: Media type and bytes by "repository/name".
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    #: Bytes of uploads that are open, by their number.
    uploads: dict[str, bytes] = field(default_factory=dict)
    #: "METHOD PATH", with "RANGE" behind it where one was sent.
    asked: list[str] = field(default_factory=list)
    #: Values of Authorization, in the same order.
    shown: list[str] = field(default_factory=list)
    opened: int = 0

    def methods(self, word: str = "/") -> list[str]:
        """The methods of requests for paths with a word in them."""
        return [line.split()[0] for line in self.asked if word in line]


class Taker(BaseHTTPRequestHandler):
    """One connection of such a registry."""

    protocol_version = "HTTP/1.1"
    shelf: Shelf
    lie: Lie

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Sends an answer; `_` in the names of headers stands for `-`."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self, most: int = 1 << 62) -> bytes:
        """What is sent, or the beginning of it; then the connection is to be cut off."""
        length = int(self.headers.get("Content-Length", 0))
        if length > most:
            self.close_connection = True
        return self.rfile.read(min(length, most))

    def handle_request(self) -> None:
        """Any method."""
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        self.number = url.path.rpartition("/")[2]
        self.repository = url.path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        shelf, ranged = self.shelf, self.headers.get("Content-Range", "")
        shelf.asked.append(f"{self.command} {self.path} {ranged}".strip())
        shelf.shown.append(self.headers.get("Authorization", ""))
        if type(self).lie(self):
            return
        if "/manifests/" in url.path:
            data = self.body()
            shelf.manifests[f"{self.repository}/{self.number}"] = (self.headers["Content-Type"], data)
            self.answer(201, Docker_Content_Digest=digest(data))
        elif "/uploads/" not in url.path:
            self.answer(200 if self.number in shelf.blobs else 404)
        else:
            getattr(self, f"upload_{self.command.lower()}")()

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_request

    def upload_post(self) -> None:
        if self.query.get("mount") in self.shelf.blobs:
            self.answer(201, Location="/")
            return
        self.shelf.opened += 1
        number = str(self.shelf.opened)
        self.shelf.uploads[number] = b""
        self.answer(202, Location=self.place(number))

    def upload_get(self) -> None:
        self.status(204)

    def upload_patch(self) -> None:
        start, _, end = self.headers["Content-Range"].partition("-")
        data = self.body()
        if self.number not in self.shelf.uploads:
            self.answer(404)
        elif self.path != self.place(self.number):
            self.answer(400, b'{"errors": [{"code": "BLOB_UPLOAD_INVALID"}]}')
        elif int(start) != len(self.shelf.uploads[self.number]) or int(end) - int(start) + 1 != len(data):
            self.answer(416)
        else:
            self.shelf.uploads[self.number] += data
            self.status(202)

    def upload_put(self) -> None:
        data = self.shelf.uploads.pop(self.number) + self.body()
        if digest(data) == self.query["digest"]:
            self.shelf.blobs[digest(data)] = data
            self.answer(201, Docker_Content_Digest=digest(data))
        else:
            self.answer(
                400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "provided digest differs"}]}'
            )

    def upload_delete(self) -> None:
        self.answer(204 if self.shelf.uploads.pop(self.number, None) is not None else 404)

    def status(self, code: int) -> None:
        """Says how far an upload is."""
        if (data := self.shelf.uploads.get(self.number)) is None:
            self.answer(404)
        else:
            self.answer(code, Location=self.place(self.number), Range=f"0-{max(0, len(data) - 1)}")

    def place(self, number: str) -> str:
        """Where an upload is sent to now; the query must come back as it is."""
        state = f"a%2Fb+{len(self.shelf.uploads.get(number, b''))}"
        return f"/v2/{self.repository}/blobs/uploads/{number}?state={state}"

    def log_message(self, format: str, *args: object) -> None:
        pass


def taking(shelf: Shelf, lie: Lie = lambda request: False) -> type[BaseHTTPRequestHandler]:
    """A registry that puts on a shelf what it gets, unless it answers as `lie` says."""
    return type("Taking", (Taker,), {"shelf": shelf, "lie": staticmethod(lie)})
