"""A registry of one image that may lie about it: the one fake that there is, because no real registry lies.

def lie(request, body):                       # True: it has answered itself
    if lying := "/blobs/" in request.path:
        send(request, body[:-1] + b"x")
    return lying

with served(liar(built, lie)) as host:
    pull(root, f"{host}/x:1")
"""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from tests.support.images import INDEX, MANIFEST, Built

#: Answers a request itself and returns True, or leaves it to the honest registry.
Lie = Callable[[BaseHTTPRequestHandler, bytes], bool]


def liar(
    built: Built, lie: Lie = lambda request, body: False, asked: list[str] | None = None
) -> type[BaseHTTPRequestHandler]:
    """A registry with one image, that may lie about it."""
    manifest = built.blobs[built.descriptor["digest"]]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            body = built.blobs.get(name, manifest if "/manifests/" in self.path else b"")
            if asked is not None:
                asked.append(
                    f"{self.path} {self.headers.get('Range', '')} {self.headers.get('Authorization', '')}".strip()
                )
            if not lie(self, body):
                send(self, body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def send(
    request: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, **headers: str
) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    kind = INDEX if b'"manifests"' in body else MANIFEST
    for key, value in {"Content_Type": kind, **headers}.items():
        request.send_header(key.replace("_", "-"), value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)
