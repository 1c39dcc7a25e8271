"""Servers as Debian packages them, run as people run them: as users of their own, with volumes, checks, signals."""

import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tinyo.v1 import event_pb2 as ev

from tests.support.client import Client
from tests.support.instance import PROGRAMS, Instance

IMAGE = "localhost/servers:1"
SERVERS = "postgresql,nginx-light,redis-server,nodejs,python3-minimal,libpython3-stdlib"
#: What no container needs.
WITHOUT = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
HEALTHY = ev.EVENT_REASON_HEALTHY
CHECKED = "interval: 1s, start_interval: 100ms"

POSTGRES = f"""
container: {IMAGE}
name: db
user: postgres
command:
  - postgres
  - -D/var/lib/postgresql/15/main
  - -cconfig_file=/etc/postgresql/15/main/postgresql.conf
  - -k/tmp
env: {{PATH: "/usr/lib/postgresql/15/bin:/usr/bin:/bin", ROUND: "1"}}
mounts: ["pgdata:/var/lib/postgresql"]
shm_size: 128m
stop_signal: SIGINT
health: {{exec: [pg_isready, -q, -h/tmp], {CHECKED}}}
"""
NGINX = f"""
container: {IMAGE}
name: web
command: nginx -c /srv/nginx.conf
mounts: ["./nginx.conf:/srv/nginx.conf:ro"]
port: "127.0.0.1:PORT:80"
stop_signal: SIGQUIT
health: {{http: /, {CHECKED}}}
"""
NGINX_CONF = """
user www-data; daemon off; pid /run/nginx.pid; error_log /dev/stderr notice;
events {}
http { access_log /dev/stdout; server { listen 80; location / { return 200 "GREETING"; } } }
"""
REDIS = f"""
container: {IMAGE}
name: cache
user: redis
command: redis-server --dir /var/lib/redis --appendonly yes --protected-mode no
mounts: ["cache:/var/lib/redis"]
port: "127.0.0.1:PORT:6379"
health: {{tcp: 6379, {CHECKED}}}
"""
NODE = f"""
container: {IMAGE}
name: app
user: nobody
init: true
command:
  - node
  - -e
  - require("http").createServer((question, answer) => answer.end(process.version)).listen(8080)
port: "127.0.0.1:PORT:8080"
health: {{http: {{port: 8080, path: /}}, {CHECKED}}}
"""
PYTHON = f"""
container: {IMAGE}
name: files
user: "nobody:nogroup"
read_only: true
tmpfs: /tmp
workdir: /etc
command: [python3, -m, http.server, "8000"]
port: "127.0.0.1:PORT:8000"
health: {{http: {{port: 8000, path: /debian_version}}, {CHECKED}}}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system of a Debian with all of them."""
    made = tmp_path_factory.mktemp("servers") / "servers.tar"
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=essential",
        "--mode=root",
        f"--include={SERVERS}",
        *WITHOUT,
    ]
    done = subprocess.run([*command, "bookworm", made], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no Debian can be made here: {done.stderr.strip().splitlines()[-1]}")
    return made


@pytest.fixture(scope="module")
def instance(tree: Path) -> Iterator[Instance]:
    with Instance() as made:
        made.cli("image", "import", str(tree), "--name", IMAGE)
        yield made


@pytest.fixture
def port() -> int:
    """One that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


def up(instance: Instance, client: Client, folder: Path, text: str) -> None:
    """Brings it up, and waits until it does what it is there for."""
    file = folder / "server.yml"
    file.write_text(text)
    before = client.events()
    assert instance.cli("+", str(file)).returncode == 0
    client.until(text.split("name: ")[1].split()[0], HEALTHY, before[-1].sequence if before else 0)


def said(instance: Instance, name: str, text: str) -> None:
    """Returns when the log has that."""
    command = [str(PROGRAMS / "tinyo"), "logs", "-f", name]
    with subprocess.Popen(command, env=instance.environment, stdout=-1, stderr=-2, text=True) as logs:
        assert logs.stdout
        assert any(text in line for line in logs.stdout), f"{name} ended, and never said {text!r}"
        logs.terminate()


def get(port: int, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def ended(client: Client, instance: Instance, name: str) -> int:
    """Stops it; its exit code."""
    instance.cli("stop", name)
    return client.get(name).status.exit.code


def test_postgres(client: Client, instance: Instance, tmp_path: Path) -> None:
    """Its volume begins with what the image has there, and belongs to its user; the key of its certificate is read by
    way of a further group; shared memory, reload, and a stop that is not asked of clients."""
    sql = ["exec", "db", "--", "psql", "-h/tmp", "-qtA", "-c"]
    up(instance, client, tmp_path, POSTGRES)
    instance.cli(*sql, "create table kept as select 42 as answer", "-c", "alter system set work_mem = '7MB'")
    assert instance.cli(*sql, "show ssl").stdout == "on\n"
    instance.cli("kill", "-s", "HUP", "db")
    said(instance, "db", 'parameter "work_mem" changed to "7MB"')
    up(instance, client, tmp_path, POSTGRES.replace('ROUND: "1"', 'ROUND: "2"'))
    assert instance.cli(*sql, "select answer from kept").stdout == "42\n"
    assert ended(client, instance, "db") == 0
    assert "database system is shut down" in instance.cli("logs", "db", check=False).stderr


def test_nginx(client: Client, instance: Instance, tmp_path: Path, port: int) -> None:
    """Root is its master, others its workers; its logs are the container's; it reads its file again on HUP."""
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX_CONF.replace("GREETING", "one"))
    up(instance, client, tmp_path, NGINX.replace("PORT", str(port)))
    assert get(port) == "one"
    users = {line.split()[2] for line in instance.cli("top", "web").stdout.splitlines()[1:]}
    assert users == {"root", "www-data"}
    configuration.write_text(NGINX_CONF.replace("GREETING", "two"))
    instance.cli("kill", "-s", "HUP", "web")
    said(instance, "web", "signal 29 (SIGIO) received")  # of the new workers
    for _ in range(1000):  # the old ones may take some more
        if get(port) == "two":
            break
    assert get(port, "/last") == "two"
    said(instance, "web", "GET /last")
    assert ended(client, instance, "web") == 0


def test_redis(client: Client, instance: Instance, tmp_path: Path, port: int) -> None:
    """What it was told is there after a stop and a start."""

    def ask(*words: str) -> bytes:
        with closing(socket.create_connection(("127.0.0.1", port), 20)) as redis:
            redis.sendall(f"{' '.join(words)}\r\n".encode())
            return redis.recv(100)

    up(instance, client, tmp_path, REDIS.replace("PORT", str(port)))
    assert ask("set", "key", "value") == b"+OK\r\n"
    assert ended(client, instance, "cache") == 0
    last = client.events()[-1].sequence
    instance.cli("start", "cache")
    client.until("cache", HEALTHY, last)
    assert ask("get", "key") == b"$5\r\nvalue\r\n"
    assert instance.cli("exec", "cache", "--", "stat", "-c%U", "/var/lib/redis").stdout == "redis\n"


def test_node(client: Client, instance: Instance, tmp_path: Path, port: int) -> None:
    """It handles no signals, and ends at once all the same, because it is not the first process."""
    up(instance, client, tmp_path, NODE.replace("PORT", str(port)))
    assert get(port).startswith("v")
    assert ended(client, instance, "app") == 128 + 15


def test_python(client: Client, instance: Instance, tmp_path: Path, port: int) -> None:
    """Nobody, on a root that cannot be written to."""
    up(instance, client, tmp_path, PYTHON.replace("PORT", str(port)))
    assert get(port, "/debian_version").startswith("12.")
    script = "import tempfile, os; print(tempfile.gettempdir(), os.access('/etc', os.W_OK), os.getuid())"
    assert instance.cli("exec", "files", "--", "python3", "-c", script).stdout == "/tmp False 65534\n"
    said(instance, "files", "GET /debian_version")
