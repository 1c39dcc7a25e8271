"""Tries what chance and coverage suggest: `python -m tests.fuzz SECONDS`, all targets in turn (`make fuzz`).

Each target has a process of its own, which is guided by the lines that its inputs reach (atheris, libFuzzer). The
first input that a target cannot stand is kept in `findings/`, named, and ends with exit code 1.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

if sys.argv[1:2] == ["target"]:  # what it calls is instrumented when it is imported
    import atheris

    with atheris.instrument_imports(include=["tinyo_runtime"]):
        from tests.fuzz import targets
else:
    from tests.fuzz import targets

FINDINGS = Path(__file__).parent / "findings"
#: Seconds for one input; bytes of one; memory.
LIMITS = ("-timeout=10", "-max_len=16384", "-rss_limit_mb=1024")


def main() -> int:
    """All targets; or one of them, as a process of its own that never comes back."""
    if sys.argv[1] == "target":
        search(*sys.argv[2:])
    seconds = float(sys.argv[1]) / len(targets.TARGETS)
    failed = [name for name in targets.TARGETS if not stands(name, seconds)]
    for name in failed:
        print(
            f"{name}: what it cannot stand is in {FINDINGS.relative_to(Path.cwd())}, where `make test` tries it"
        )
    return bool(failed)


def stands(name: str, seconds: float) -> bool:
    """Whether a target stood all that was tried."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(targets.seeds(name)):
            Path(corpus, str(number)).write_bytes(seed)
        command = [sys.executable, "-m", "tests.fuzz", "target", name, *LIMITS]
        command += [f"-max_total_time={max(1, round(seconds))}", f"-artifact_prefix={FINDINGS}/{name}-"]
        found = subprocess.run([*command, corpus, str(FINDINGS)], capture_output=True, text=True)
    lines = found.stderr.splitlines()
    if found.returncode:
        print(found.stderr)
    runs = next((line for line in reversed(lines) if line.startswith("Done ")), "stopped")
    print(f"{name}: {runs.removeprefix('Done ')}", flush=True)
    return not found.returncode


def search(name: str, *arguments: str) -> NoReturn:
    """Feeds one target with what reaches new lines of it."""
    import atheris

    atheris.Setup([name, *arguments], atheris.instrument_func(targets.TARGETS[name]))
    atheris.Fuzz()
    raise SystemExit("the fuzzer ended")


if __name__ == "__main__":
    sys.exit(main())
