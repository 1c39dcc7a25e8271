"""Registries that want to know who we are, mirrors, authorities of one's own and proxies; and no secret anywhere else."""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TypeVar

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, patience, registries, trust

from tests.support.client import PATIENCE, Client
from tests.support.images import busybox_image
from tests.support.instance import PROGRAMS, Instance
from tests.support.registry import basic, free_port, guarded, registry, requests, served, token_service

T = TypeVar("T")
SECRET = "s3cret-word"
LOGIN = f"me:{SECRET}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has nothing."""
    for name in ("DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(patience, "DELAYS", (0.01,))
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    """A registry that wants to know nothing, with an image."""
    with registry(folder) as address:
        busybox_image(address, "team/app")
        yield address


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 0.0.0.0, which is this machine, but not by a name of loopback; and a server's context with it."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "ca.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
    names = ["-addext", "subjectAltName=IP:0.0.0.0"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def in_store(root: Path, use: Callable[[ImageStore], Awaitable[T]], settings: str = "") -> T:
    """Runs `use` with a store, for which `settings` is registries.toml."""

    async def run() -> T:
        root.mkdir(exist_ok=True)
        (root / "registries.toml").write_text(settings)
        store = ImageStore(root)
        store.registries = registries.load(root)
        store.insecure |= store.registries.insecure
        try:
            return await use(store)
        finally:
            await store.close()

    trust._trusted.cache_clear()
    result = asyncio.run(run())
    assert os.listdir(root / "pulling") == []
    return result


def pull(root: Path, reference: str, settings: str = "") -> Image:
    return in_store(root, lambda store: store.pull(reference, refresh=True), settings)


def login(root: Path, registry: str, password: str = SECRET) -> str:
    return in_store(root, lambda store: store.login(registry, "me", password))


def refused(call: Callable[[], object], reason: str) -> TinyoError:
    with pytest.raises(TinyoError) as caught:
        call()
    assert caught.value.reason == reason
    told, error = "", caught.value  # what a traceback would show as well
    while error:
        told += f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    assert SECRET not in told and basic(LOGIN).split()[1] not in told
    return caught.value


def test_password(host: str, home: Path) -> None:
    with guarded(host, LOGIN) as address:
        error = refused(lambda: pull(home / "s", f"{address}/team/app"), "REGISTRY_DENIED")
        assert f"`tinyo login {address}`" in error.message
        assert (
            "nothing was kept"
            in refused(lambda: login(home / "s", address, "wrong"), "REGISTRY_DENIED").message
        )
        assert not (home / "s/auth.json").exists()
        assert login(home / "s", f"http://{address}/v2/") == address
        assert (home / "s/auth.json").stat().st_mode & 0o777 == 0o600
        assert pull(home / "s", f"{address}/team/app").layers
        # What is wrong later is not kept in place of what was right.
        refused(lambda: login(home / "s", address, "wrong"), "REGISTRY_DENIED")
        assert pull(home / "s", f"{address}/team/app").layers


def test_logout_is_felt_at_once(host: str, home: Path) -> None:
    with guarded(host, LOGIN) as address:

        async def use(store: ImageStore) -> None:
            await store.login(address, "me", SECRET)
            await store.pull(f"{address}/team/app")
            assert store.logout(address) == (address, True)
            assert store.logout(address) == (address, False)
            with pytest.raises(TinyoError, match="denies access"):
                await store.pull(f"{address}/team/app", refresh=True)
            await store.login(address, "me", SECRET)
            await store.pull(f"{address}/team/app", refresh=True)

        in_store(home / "s", use)


def test_what_docker_has(host: str, home: Path) -> None:
    with guarded(host, LOGIN) as address:
        (home / ".docker").mkdir()
        auth = {"auth": basic(LOGIN).removeprefix("Basic ")}
        wrong = {"auth": basic("me:no").removeprefix("Basic ")}
        auths = {"auths": {address: wrong, f"{address}/team": auth}}
        (home / ".docker/config.json").write_text(json.dumps(auths))
        assert pull(home / "s", f"{address}/team/app").layers
        (home / ".docker/config.json").write_text(f"{{{SECRET}")
        refused(lambda: pull(home / "t", f"{address}/team/app"), "REGISTRY_MISCONFIGURED")


def test_a_registry_that_lets_anybody_in_is_told_all_the_same(host: str, home: Path) -> None:
    asked: list[str] = []
    with guarded(host, "", asked) as address:
        assert login(home / "s", address) == address
    assert asked == ["/v2/", f"/v2/ {basic(LOGIN)}"]


@pytest.mark.parametrize("user", ["", "a:b", "x" * 20_000])
def test_users_that_cannot_be(home: Path, user: str) -> None:
    call = lambda: in_store(home / "s", lambda store: store.login("r.test", user, SECRET))  # noqa: E731
    refused(call, "LOGIN_INVALID")


def test_nobody_there(home: Path) -> None:
    refused(lambda: login(home / "s", f"127.0.0.1:{free_port()}"), "REGISTRY_UNREACHABLE")


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A registry whose token service wants a password, and what that was asked."""
    with (
        token_service(tmp_path / "tokens", LOGIN) as (realm, certificate, queries),
        registry(tmp_path / "asked", realm, certificate) as address,
    ):
        data = tmp_path / "asked/data"
        with registry(tmp_path / "open") as other:
            busybox_image(other, "team/app")
        shutil.copytree(tmp_path / "open/data", data, dirs_exist_ok=True)
        yield address, queries


def test_password_for_a_token(tokens: tuple[str, list[str]], home: Path) -> None:
    address, queries = tokens
    refused(lambda: pull(home / "s", f"{address}/team/app"), "REGISTRY_DENIED")
    refused(lambda: login(home / "s", address, "wrong"), "REGISTRY_DENIED")
    assert login(home / "s", address) == address
    assert queries[-1] == "service=registry.test"
    assert pull(home / "s", f"{address}/team/app").layers
    assert queries[-1].startswith("scope=repository%3Ateam%2Fapp%3Apull")
    assert SECRET not in "".join(queries)


def test_identity_token(tokens: tuple[str, list[str]], home: Path) -> None:
    address, queries = tokens
    (home / "run/containers").mkdir(parents=True)
    entry = {"auths": {address: {"identitytoken": f"refresh-{SECRET}"}}}
    (home / "run/containers/auth.json").write_text(json.dumps(entry))
    assert pull(home / "s", f"{address}/team/app").layers
    assert "grant_type=refresh_token" in queries[-1] and "scope=repository%3Ateam%2Fapp%3Apull" in queries[-1]


def answering(  # type: ignore[no-untyped-def]
    answer: Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str]]],
    seen: list[str],
    context: ssl.SSLContext | None = None,
):
    """A server without content, that notes all that it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.path} {self.headers}")
            status, headers = answer(self)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(key, value)
            self.end_headers()

        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return served(Handler, context)


def kept(root: Path, registry: str, **entry: str) -> None:
    root.mkdir()
    entry = entry or {"auth": basic(LOGIN).removeprefix("Basic ")}
    (root / "auth.json").write_text(json.dumps({"auths": {registry: entry}}))


def told(seen: list[str]) -> bool:
    return any(SECRET in one or basic(LOGIN) in one for one in seen)


def test_who_we_are_sent_to_learns_nothing(home: Path) -> None:
    """Neither by the header, nor by asking for it."""
    here: list[str] = []
    there: list[str] = []
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    with answering(lambda request: (401, challenge), there) as other:

        def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
            if request.headers.get("Authorization"):
                return 307, {"Location": f"http://{other}{request.path}"}
            return 401, challenge

        with answering(answer, here) as address:
            kept(home / "s", address)
            refused(lambda: pull(home / "s", f"{address}/x"), "REGISTRY_DENIED")
            refused(lambda: login(home / "t", address), "REGISTRY_UNREACHABLE")
    assert told(here) and there and not told(there)


@pytest.mark.parametrize("entry", [{}, {"identitytoken": SECRET}])
def test_who_a_token_service_sends_us_to_learns_nothing(home: Path, entry: dict[str, str]) -> None:
    here: list[str] = []
    there: list[str] = []
    with answering(lambda request: (200, {}), there) as other:

        def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
            if request.path.startswith("/token"):
                return 307, {"Location": f"http://{other}{request.path}"}
            realm = f"http://{request.headers['Host']}/token"
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}

        with answering(answer, here) as address:
            kept(home / "s", address, **entry)
            refused(lambda: pull(home / "s", f"{address}/x"), "REGISTRY_UNREACHABLE")
    assert told(here) and bool(there) != bool(entry) and not told(there)


def test_a_token_service_without_tls_gets_no_password(home: Path) -> None:
    seen: list[str] = []
    with answering(lambda request: (200, {}), seen) as service:
        realm = f"http://0.0.0.0:{service.rpartition(':')[2]}/token"
        challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
        with answering(lambda request: (401, challenge), []) as address:
            kept(home / "s", address)
            error = refused(lambda: pull(home / "s", f"{address}/x"), "REGISTRY_UNREACHABLE")
    assert "'0.0.0.0' has no TLS, and gets no credentials" in error.message and not seen


@pytest.mark.parametrize(
    "challenge",
    ["", "Negotiate", "Bearer", 'Bearer realm="http://["', 'Bearer realm="file:///etc/passwd"', "Basic" * 99],
)
def test_challenges_that_nobody_can_meet(home: Path, challenge: str) -> None:
    with answering(lambda request: (401, {"WWW-Authenticate": challenge}), []) as address:
        kept(home / "s", address)
        with pytest.raises(TinyoError) as caught:
            pull(home / "s", f"{address}/x")
    assert caught.value.reason in ("REGISTRY_DENIED", "REGISTRY_UNREACHABLE")


def mirrored(*mirrors: str) -> str:
    return f'["registry.test"]\nmirrors = {json.dumps(mirrors)}\n'


def test_mirrors_in_order(host: str, folder: Path, home: Path) -> None:
    """One that nobody answers at, one that denies, one without it, and one that has it in a folder."""
    with guarded(host, LOGIN) as denying, answering(lambda request: (404, {}), []) as empty:
        settings = mirrored(f"127.0.0.1:{free_port()}", denying, empty, f"{host}/team")
        before = len(requests(folder))
        pulled = pull(home / "s", "registry.test/app", settings)
    assert pulled.references == ("registry.test/app:latest",)
    assert requests(folder)[before:][0] == "GET /v2/team/app/manifests/latest"


def test_an_unchanged_tag_is_asked_of_a_mirror(host: str, folder: Path, home: Path) -> None:
    """Once; of one that knows no HEAD, and of one that is not there, nothing is learned and nothing is wrong."""
    with guarded(host, "") as without_head:
        settings = mirrored(f"127.0.0.1:{free_port()}", f"{without_head}/team", f"{host}/team")
        first = pull(home / "s", "registry.test/app", settings)
        before = len(requests(folder))
        assert pull(home / "s", "registry.test/app", settings) == first
        assert requests(folder)[before:] == ["HEAD /v2/team/app/manifests/latest"]
        settings = mirrored(f"{without_head}/team")
        assert pull(home / "s", "registry.test/app", settings) == first
        assert requests(folder)[before + 1 :] == ["GET /v2/team/app/manifests/latest"]


def test_the_registry_itself_comes_last(host: str, home: Path) -> None:
    silent = f"127.0.0.1:{free_port()}"
    settings = f'["{host}"]\nmirrors = ["{silent}"]\n'
    assert pull(home / "s", f"{host}/team/app", settings).layers
    error = refused(lambda: pull(home / "t", f"{host}/team/none", settings), "IMAGE_NOT_FOUND")
    assert f"registry {host} does not have it; mirror {silent}: " in error.message
    silent_too = f"127.0.0.1:{free_port()}"
    settings = f'["{silent_too}"]\nmirrors = ["{host}"]\n'
    error = refused(lambda: pull(home / "u", f"{silent_too}/none", settings), "REGISTRY_UNREACHABLE")
    assert f"registry {silent_too} cannot be reached: " in error.message
    assert f"mirror {host}: image {host}/none:latest was not found" in error.message


def test_a_mirror_has_a_login_of_its_own(host: str, home: Path) -> None:
    asked: list[str] = []
    with guarded(host, LOGIN, asked) as mirror:
        kept(home / "s", "registry.test", auth=basic("other:one").removeprefix("Basic "))
        assert login(home / "s", mirror) == mirror
        assert pull(home / "s", "registry.test/team/app", mirrored(mirror)).layers
    assert not any(basic("other:one") in one for one in asked)


def test_authorities_of_one_registry(
    host: str, home: Path, authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    certificate, context = authority
    with guarded(host, "", context=context) as served_at:
        address = f"0.0.0.0:{served_at.rpartition(':')[2]}"
        error = refused(lambda: pull(home / "s", f"{address}/team/app"), "REGISTRY_UNREACHABLE")
        assert "certificate" in error.message
        settings = f'["{address}"]\nca = "{certificate}"\n'
        assert pull(home / "s", f"{address}/team/app", settings).layers
        own = home / "t/certs.d" / address
        own.mkdir(parents=True)
        shutil.copy(certificate, own / "ca.crt")
        assert pull(home / "t", f"{address}/team/app").layers
        (own / "more.crt").write_text("no certificate")
        error = refused(lambda: pull(home / "t", f"{address}/team/app"), "REGISTRY_MISCONFIGURED")
        assert str(own / "more.crt") in error.message


@pytest.mark.parametrize("kind", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_authorities_of_all_registries(
    host: str, home: Path, authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    certificate, context = authority
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", certificate], stdout=subprocess.PIPE
    )
    (home / "authorities").mkdir()
    shutil.copy(certificate, home / "authorities" / f"{hashed.stdout.decode().strip()}.0")
    monkeypatch.setenv(kind, str(certificate if kind == "SSL_CERT_FILE" else home / "authorities"))
    with guarded(host, "", context=context) as served_at:
        assert pull(home / "s", f"0.0.0.0:{served_at.rpartition(':')[2]}/team/app").layers


@pytest.fixture(scope="module")
def me(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Our own certificate, and its key."""
    folder = tmp_path_factory.mktemp("me")
    key, certificate = folder / "me.key", folder / "me.cert"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=me"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def acquainted(
    authority: tuple[Path, ssl.SSLContext], me: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[ssl.VerifyMode], ssl.SSLContext]:
    """Makes a server's context that knows our certificate, and wants to see it or only asks for it."""
    monkeypatch.setenv("NO_PROXY", "*")
    certificate, _ = authority

    def made(mode: ssl.VerifyMode) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        context.load_verify_locations(me[0])
        context.verify_mode = mode
        return context

    return made


def test_a_registry_that_wants_to_see_a_certificate(
    host: str,
    home: Path,
    authority: tuple[Path, ssl.SSLContext],
    me: tuple[Path, Path],
    acquainted: Callable[[ssl.VerifyMode], ssl.SSLContext],
) -> None:
    with guarded(host, "", context=acquainted(ssl.CERT_REQUIRED)) as served_at:
        address = f"0.0.0.0:{served_at.rpartition(':')[2]}"
        trusted = f'["{address}"]\nca = "{authority[0]}"\n'
        refused(lambda: pull(home / "s", f"{address}/team/app", trusted), "REGISTRY_UNREACHABLE")
        introduced = f'{trusted}cert = "{me[0]}"\nkey = "{me[1]}"\n'
        assert pull(home / "t", f"{address}/team/app", introduced).layers
        own = home / "u/certs.d" / address
        own.mkdir(parents=True)
        shutil.copy(authority[0], own / "ca.crt")
        shutil.copy(me[0], own / "client.cert")
        error = refused(lambda: pull(home / "u", f"{address}/team/app"), "REGISTRY_MISCONFIGURED")
        assert f"{own}/client.cert is of no use: its key client.key is not beside it" in error.message
        shutil.copy(authority[0].with_name("key.pem"), own / "client.key")
        error = refused(lambda: pull(home / "u", f"{address}/team/app"), "REGISTRY_MISCONFIGURED")
        assert "is the key of" in error.message
        shutil.copy(me[1], own / "client.key")
        assert pull(home / "u", f"{address}/team/app").layers


def test_a_refusal_that_comes_after_the_handshake(
    home: Path, authority: tuple[Path, ssl.SSLContext], acquainted: Callable[[ssl.VerifyMode], ssl.SSLContext]
) -> None:
    """In TLS 1.3 a server that wants a certificate says so when the client believes to be connected."""
    context = acquainted(ssl.CERT_REQUIRED)

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with pytest.raises(ssl.SSLError):
            tls.do_handshake()
        with socket.socket(fileno=tls.detach()) as rest:
            while rest.recv(4096):  # closed with bytes unread, it would be reset, and the refusal be lost
                pass

    with socket.create_server(("0.0.0.0", 0)) as listener:
        server = threading.Thread(target=refuse, args=[listener])
        server.start()
        address = f"0.0.0.0:{listener.getsockname()[1]}"
        trusted = f'["{address}"]\nca = "{authority[0]}"\n'
        error = refused(lambda: pull(home / "s", f"{address}/team/app", trusted), "REGISTRY_UNREACHABLE")
        server.join()
    assert "certificate required" in error.message


def test_nobody_else_sees_our_certificate(
    home: Path,
    authority: tuple[Path, ssl.SSLContext],
    me: tuple[Path, Path],
    acquainted: Callable[[ssl.VerifyMode], ssl.SSLContext],
) -> None:
    """Whoever a registry sends us to may ask for it, and gets none."""
    shown: list[bool] = []
    locations: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        shown.append(bool(request.connection.getpeercert()))
        return (307, {"Location": locations[0] + request.path}) if len(shown) == 1 else (404, {})

    context = acquainted(ssl.CERT_OPTIONAL)
    with answering(answer, [], context) as other, answering(answer, [], context) as served_at:
        address = f"0.0.0.0:{served_at.rpartition(':')[2]}"
        locations.append(f"https://0.0.0.0:{other.rpartition(':')[2]}")
        settings = f'["{address}"]\nca = "{authority[0]}"\ncert = "{me[0]}"\nkey = "{me[1]}"\n'
        refused(lambda: pull(home / "s", f"{address}/x", settings), "IMAGE_NOT_FOUND")
    assert shown == [True, False]


def test_proxy(host: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with guarded(host, "", asked) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        assert pull(
            home / "s", "registry.test:5000/team/app", '["registry.test:5000"]\ninsecure = true\n'
        ).layers
        assert asked[0] == "http://registry.test:5000/v2/team/app/manifests/latest"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        del asked[:]
        monkeypatch.setenv("http_proxy", "http://proxy.test:1")
        assert pull(home / "t", f"{host}/team/app").layers  # never on loopback
        refused(
            lambda: pull(home / "u", "registry.test:5000/x", '["registry.test:5000"]\ninsecure = true\n'),
            "REGISTRY_UNREACHABLE",
        )
        assert not asked


def test_the_whole_way(host: str, home: Path) -> None:
    """Through the command line and both services; the password is nowhere but in one file."""
    with guarded(host, LOGIN) as address, Instance(HOME=str(home)) as instance:
        arguments = ("login", "-u", "me", "--password-stdin", address)
        wrong = instance.cli(*arguments, stdin=f"{SECRET}x\n", check=False)
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert (
            wrong.stderr
            == f"tinyo: registry {address} does not accept this user and password: nothing was kept\n"
        )
        assert instance.cli(*arguments, stdin=f"{SECRET}\n").stdout == f"✓ {address}  logged in as me\n"
        instance.cli("image", "pull", f"{address}/team/app")
        events = instance.cli("events").stdout
        logs = [instance.log(service).read_text() for service in instance.services]
        assert SECRET not in "".join((*logs, events, wrong.stderr))
        secret = basic(LOGIN).removeprefix("Basic ").encode()
        files = [path for path in (*instance.state.rglob("*"), *instance.run.rglob("*")) if path.is_file()]
        holders = [path for path in files if secret in (data := path.read_bytes()) or SECRET.encode() in data]
        assert holders == [instance.state / "auth.json"]
        assert holders[0].stat().st_mode & 0o777 == 0o600
        assert instance.cli("logout", address).stdout == f"✓ {address}  logged out\n"
        assert instance.cli("logout", address).stdout == f"✓ {address}  was not logged in\n"
        bad = instance.cli("logout", "no/registry", check=False)
        assert (bad.returncode, "'no/registry'" in bad.stderr) == (2, True)
        denied = instance.cli("image", "pull", f"{address}/team/app", check=False)
        assert f"`tinyo login {address}` may help" in denied.stderr


def test_a_runtime_reads_the_file_of_its_instance(host: str, home: Path) -> None:
    instance = Instance("tinyo-runtime", HOME=str(home))
    etc = Path("/etc", instance.name)
    etc.mkdir()
    try:
        (etc / "registries.toml").write_text('["registry.test"]\nmirror = ["x"]\n')
        done = subprocess.run(
            [PROGRAMS / "tinyo-runtime"], env=instance.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        wrong = "registry.test: unknown key 'mirror'; there are: insecure, mirrors, ca, cert, key"
        assert done.stderr == f"{etc}/registries.toml: {wrong}\n"
        (etc / "registries.toml").write_text(mirrored(host))
        instance.services = ("tinyo-runtime", "tinyo-node")
        with instance:
            instance.cli("image", "pull", "registry.test/team/app")
    finally:
        shutil.rmtree(etc)
        shutil.rmtree(instance.state, ignore_errors=True)
        shutil.rmtree(instance.run, ignore_errors=True)


def test_a_runtime_that_is_just_being_started_is_waited_for(host: str, home: Path) -> None:
    with (
        Instance("tinyo-node", HOME=str(home)) as instance,
        Client(instance.socket("tinyo-node")) as client,
    ):
        request = pb.LoginRequest(registry=host, username="me", password=SECRET)
        login = client.node.Login.future(request, timeout=PATIENCE)
        instance.start("tinyo-runtime")
        assert login.result().registry == host
