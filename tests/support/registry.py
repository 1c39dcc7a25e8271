"""A real registry on loopback (Debian's docker-registry), and the token service that it can ask for.

with registry(tmp_path) as host:              # "127.0.0.1:41234"
    busybox_image(host, "demo")
"""

import base64
import json
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SERVICE = "registry.test"


@contextmanager
def registry(
    folder: Path,
    token_realm: str = "",
    certificate: Path | None = None,
    htpasswd: str = "",
    read_only: bool = False,
) -> Iterator[str]:
    """Runs a registry with its state and log in `folder`; yields "127.0.0.1:PORT" when it answers.

    With `token_realm` (the URL of a `token_service`) it wants tokens signed by `certificate`; with `htpasswd`
    ("user:HASH" by bcrypt) a password.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    config = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
            "maintenance": {"readonly": {"enabled": read_only}},
        },
        "http": {"addr": address},
    }
    if token_realm:
        config["auth"] = {
            "token": {
                "realm": token_realm,
                "service": SERVICE,
                "issuer": SERVICE,
                "rootcertbundle": str(certificate),
            }
        }
    if htpasswd:
        (folder / "htpasswd").write_text(f"{htpasswd}\n")
        config["auth"] = {"htpasswd": {"realm": SERVICE, "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        _await_answer(process, address, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait()


def requests(folder: Path) -> list[str]:
    """What the registry in `folder` was asked since its start: "GET /v2/demo/manifests/latest" and the like."""
    lines = (folder / "log").read_text(errors="replace").splitlines()
    asked = [line for line in lines if re.search('"(GET|HEAD) /v2/', line) and not line.startswith("time=")]
    quoted = [line.split('"')[1] for line in asked]
    return [line.rpartition(" HTTP/")[0] for line in quoted]


def everything(folder: Path) -> list[str]:
    """The same with all methods."""
    asked = re.compile(r'(?!time=)[^"]*"([A-Z]+ /v2/\S*) HTTP/')
    lines = (folder / "log").read_text(errors="replace").splitlines()
    return [match[1] for line in lines if (match := asked.match(line))]


@contextmanager
def token_service(folder: Path, login: str = "") -> Iterator[tuple[str, Path, list[str]]]:
    """A service that gives a token for whatever scope is asked; yields its URL, its certificate and the queries.

    With `login` ("user:password") it gives none to others; an identity token "refresh-PASSWORD" is as good.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    queries: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.urlparse(self.path).query
            queries.append(query)
            self.answer(query, not login or self.headers.get("Authorization") == basic(login))

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            queries.append(form)
            good = dict(urllib.parse.parse_qsl(form)).get("refresh_token")
            self.answer(form, good == f"refresh-{login.partition(':')[2]}")

        def answer(self, query: str, accepted: bool) -> None:
            if not accepted:
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = [value for name, value in urllib.parse.parse_qsl(query) if name == "scope"]
            token = _token(key, certificate, " ".join(asked).split())
            body = json.dumps({"token": token}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with served(Handler) as address:
        yield f"http://{address}/token", certificate, queries


def basic(login: str) -> str:
    """How "user:password" is written in the header Authorization."""
    return f"Basic {base64.b64encode(login.encode()).decode()}"


@contextmanager
def guarded(
    address: str, login: str, asked: list[str] | None = None, context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A registry that wants a password ("user:password") before it passes a request on to the one at `address`.

    It is a proxy as well: what is asked for in full ("GET http://…") is passed on to there, whatever its host.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append(f"{self.path} {self.headers.get('Authorization', '')}".strip())
            if login and self.headers.get("Authorization") != basic(login):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="those who, of us"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path = urllib.parse.urlsplit(self.path).path
            headers = {"Accept": ", ".join(self.headers.get_all("Accept", []))}
            request = urllib.request.Request(f"http://{address}{path}", headers=headers)
            try:
                response = urllib.request.urlopen(request)
            except urllib.error.HTTPError as error:
                response = error
            with response:
                body = response.read()
                self.send_response(response.status)
                self.send_header("Content-Type", response.headers.get("Content-Type", ""))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with served(Handler, context) as host:
        yield host


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """An HTTP server on loopback that answers as `handler` says: for registries that lie. With TLS by `context`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_answer(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it wants a token
        except OSError:
            time.sleep(0.01)  # the program has no other way to say that it is ready
    raise RuntimeError(f"docker-registry ended: {log.read_text()}")


def _token(key: Path, certificate: Path, scopes: list[str]) -> str:
    """A JSON web token as docker-registry wants it: RS256, with the certificate in its header."""
    pem = certificate.read_text().split("-----")[2].replace("\n", "")
    now = int(time.time())
    header = {"typ": "JWT", "alg": "RS256", "x5c": [pem]}
    claims = {
        "iss": SERVICE,
        "aud": SERVICE,
        "sub": "anyone",
        "jti": str(time.monotonic_ns()),
        "nbf": now - 60,
        "iat": now,
        "exp": now + 600,
        "access": [_access(scope) for scope in scopes],
    }
    signed = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(claims).encode())}"
    signature = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(key)],
        input=signed.encode(),
        check=True,
        capture_output=True,
    )
    return f"{signed}.{_base64(signature.stdout)}"


def _access(scope: str) -> dict[str, object]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
