"""`make demo`: the first example, from nothing to nothing, with the commands that a user would type."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from scripts.demo_image import registry

EXAMPLE = Path("examples/basic/alpine-1.yml")
NAME = EXAMPLE.stem
#: The folder that the example mounts at /config.
CONFIG = Path("/tmp/local-config")
#: Answers one HTTP request on standard input and output, and says so in the container's log.
ANSWER = r"""#!/bin/sh
read -r method path rest
while read -r header && [ "$header" != "$(printf '\r')" ]; do :; done
echo "$method $path" > /proc/1/fd/1
printf 'HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello from %s, running %s\n' "$(hostname)" "$(uname -o)"
"""
#: Seconds for Docker Hub to begin to answer, and for the container to open its port.
HUB_PATIENCE, PORT_PATIENCE = 5, 10


def main() -> None:
    """Every step in order; what was made is taken away whatever happens."""
    if os.geteuid() != 0:
        sys.exit("make demo needs root: it makes namespaces, mounts and interfaces")
    with ExitStack() as undo:
        if tinyo("services", "status", quiet=True) != 0:
            undo.callback(tinyo, "services", "stop", quiet=True)
        if not CONFIG.exists():
            CONFIG.mkdir()
            undo.callback(shutil.rmtree, CONFIG)
        answer = CONFIG / "answer"
        answer.write_text(ANSWER)
        answer.chmod(0o755)
        undo.callback(answer.unlink, missing_ok=True)

        os.chdir(choose_image(undo))
        title("Bring it up")
        undo.callback(tinyo, "-", NAME, quiet=True)
        show("+", str(EXAMPLE))
        show("ls")

        title("Its mounts, as it sees them")
        show("exec", NAME, "--", "head", "-n", "1", "/mnt/hosts")
        show("exec", NAME, "--", "ls", "-l", "/config")

        title("Port 8080, answered from inside")
        serve = "while nc -l -p 8080 -e /config/answer; do :; done"
        command = ["tinyo", "exec", NAME, "--", "sh", "-c", serve]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        undo.callback(server.wait)
        undo.callback(server.terminate)
        for host in ("127.0.0.1", "localhost", *own_addresses()):
            print(f"$ curl http://{host}:8080/\n{fetch(f'http://{host}:8080/')}", end="", flush=True)

        title("Its log")
        show("logs", NAME)

        title("Take it away")
        show("-", str(EXAMPLE))
        show("ls", "-a")
    print(
        "\nNothing of it is left. To go on:\n\n"
        f"  mkdir -p {CONFIG}\n"
        f"  {Path(sys.executable).parent.relative_to(Path.cwd())}/tinyo + {EXAMPLE}\n"
        "  make install      # puts tinyo on the PATH"
    )


def choose_image(undo: ExitStack) -> Path:
    """Gives the folder to work in: this one where Docker Hub answers, else one with a changed copy of the example."""
    title("Get an image")
    try:
        pulled = tinyo("image", "pull", "alpine:latest", quiet=True, patience=HUB_PATIENCE)
    except subprocess.TimeoutExpired:
        pulled = 1
    if pulled == 0:
        print("alpine:latest, from Docker Hub")
        return Path.cwd()
    reference = undo.enter_context(registry())
    print(f"Docker Hub cannot be reached: the example gets {reference} instead, made here from busybox")
    undo.callback(tinyo, "image", "rm", reference, quiet=True)
    folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
    undo.callback(os.chdir, Path.cwd())
    copy = folder / EXAMPLE
    copy.parent.mkdir(parents=True)
    copy.write_text(re.sub(r"(?m)^container:.*", f'container: "{reference}"', EXAMPLE.read_text()))
    return folder


def tinyo(*arguments: str, quiet: bool = False, patience: float | None = None) -> int:
    """Runs `tinyo` and gives its exit code; TimeoutExpired when it took too long."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(["tinyo", *arguments], stdout=output, stderr=output, timeout=patience).returncode


def show(*arguments: str) -> None:
    """Shows a command and what it prints; one that fails ends the demonstration."""
    print(f"$ tinyo {' '.join(arguments)}", flush=True)
    if code := tinyo(*arguments):
        sys.exit(code)


def title(text: str) -> None:
    print(
        f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else f"\n{text}",
        flush=True,
    )


def own_addresses() -> list[str]:
    """An address of this machine that is not loopback, when it has one (fib_trie: "|-- ADDRESS", "/32 host LOCAL")."""
    trie = Path("/proc/net/fib_trie").read_text()
    found = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", trie)
    return [address for address in found if not address.startswith(("127.", "169.254."))][:1]


def fetch(url: str) -> str:
    """What is answered there, as soon as somebody does. SystemExit when nobody does."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + PORT_PATIENCE
    while True:
        try:
            with direct.open(url, timeout=PORT_PATIENCE) as response:
                return str(response.read().decode())
        except (urllib.error.URLError, ConnectionError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"{url}: {error}")
            time.sleep(0.02)


if __name__ == "__main__":
    main()
