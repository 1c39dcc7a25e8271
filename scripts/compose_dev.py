"""`make compose-dev`: docker-compose.dev.yml on a real engine, with the example applied through it.

The engine is started for it and has no way out, so what the image is made from is brought along: a base from
mmdebstrap, wheels from pip, and the demo's image in the registry of the compose file.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from scripts.engine import DOCKER, engine

PACKAGES = "python3,python3-venv,make,libnftables1,libseccomp2,busybox-static,catatonit,ca-certificates,docker-registry"
WHEELS = Path("build/wheels")
COMPOSE = ["docker-compose", "--file", "docker-compose.dev.yml", "--project-name", "tinyo-dev"]
IMAGE = "registry:5000/demo"
EXAMPLE = Path("examples/basic/alpine-1.yml")
#: Asks, from the registry's container, for what a web server in the example's container finds at one of its mounts.
ASK = "import urllib.request as u; print(u.urlopen('http://runtime:8080/hosts', timeout=5).read().decode(), end='')"


def main() -> None:
    """Builds, brings up, applies, asks, takes down."""
    if os.geteuid() != 0:
        sys.exit("make compose-dev needs root: it starts a docker engine")
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        os.environ["DOCKER_HOST"] = undo.enter_context(engine(folder / "docker"))
        os.environ["BASE"] = "tinyo-base"
        phase(
            "base image",
            "bash",
            "-c",
            f"mmdebstrap --variant=minbase --include={PACKAGES} bookworm - | {DOCKER} import - tinyo-base",
        )
        requirements = [f"--requirement=requirements/{name}.txt" for name in ("uv", "run", "build")]
        phase(
            "wheels",
            sys.executable,
            "-m",
            "pip",
            "download",
            "--require-hashes",
            f"--dest={WHEELS}",
            *requirements,
        )
        phase("image of the services", *COMPOSE, "build")
        phase("up", *COMPOSE, "up", "--detach")
        undo.callback(phase, "down", *COMPOSE, "down", "--volumes")
        inside("registry", "python", "-m", "scripts.demo_image", "registry:5000")
        inside("runtime", "mkdir", "-p", "/tmp/local-config")
        change = f's|^container:.*|container: "{IMAGE}"|'
        inside("node", "sh", "-c", f"sed '{change}' {EXAMPLE} > /tmp/{EXAMPLE.name}")
        inside("node", "tinyo", "+", f"/tmp/{EXAMPLE.name}")
        inside("node", "tinyo", "ls")
        inside("node", "tinyo", "exec", EXAMPLE.stem, "--", "httpd", "-p", "8080", "-h", "/mnt")
        inside("registry", "python", "-c", ASK)
        inside("node", "tinyo", "-", EXAMPLE.stem)


def phase(what: str, *command: str) -> None:
    """One line for what takes long."""
    if subprocess.run(["scripts/phase", what, *command]).returncode != 0:
        sys.exit(1)


def inside(service: str, *command: str) -> None:
    """Runs a command in the container of a service, and shows it."""
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run([*COMPOSE, "exec", "-T", service, *command], stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
