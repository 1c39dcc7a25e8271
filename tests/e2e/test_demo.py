"""`make demo`, as often as one likes."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHOWN = (
    "✓ alpine-1  running",
    "127.0.0.1",
    "answer",
    "$ curl http://localhost:8080/\nhello from alpine-1",
    "GET /",
    "✓ alpine-1  removed",
    "Nothing of it is left.",
)


def test_the_demonstration_shows_everything_and_leaves_nothing() -> None:
    """Twice, in a network of its own, where port 8080 is free and Docker Hub is far."""
    demo = f"{sys.executable} -m scripts.demo"
    name = f"t{secrets.token_hex(4)}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        done = subprocess.run(
            ["unshare", "--net", "sh", "-ec", f"ip link set lo up; {demo}; echo AGAIN; {demo}"],
            cwd=ROOT,
            env=os.environ | {"PATH": path, "TINYO_INSTANCE": name},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
    finally:
        for folder in ("/var/lib", "/run"):
            shutil.rmtree(Path(folder, name), ignore_errors=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert set(done.stderr.splitlines()) <= {
        "nothing is here; `tinyo + FILE` brings up what a Statefile says"
    }
    for once in done.stdout.split("AGAIN\n"):
        assert "Docker Hub cannot be reached" in once
        for text in SHOWN:
            assert text in once
