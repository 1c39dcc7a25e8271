"""Which lines ran of what runs confined: the spawner and its children, packer and unpacker.

Coverage cannot follow there: the spawner runs without site-packages, its children end in exec or `_exit`, the
others in a root where nothing can be saved. So they are started through this file: a trace function sets one
byte for each line in a file that is mapped and shared, which survives chroot, clone, exec and SIGKILL alike.

In three roles: a plugin of coverage, which makes every measured process start them so; the program
`python -I confined_lines.py MAP PROGRAM ARGUMENT…`; and `save`, which makes coverage data of the maps.
"""

import mmap
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from types import FrameType
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = os.path.join(ROOT, "services/runtime/src/tinyo_runtime")
CONFINED = ("pack", "spawner", "unpack")
PROGRAMS = tuple(f"{PACKAGE}/{folder}/__main__.py" for folder in CONFINED)
MAPS = os.path.join(ROOT, ".coverage-confined")
#: Bytes of a map for each file: more than it has lines.
SIZE = 4096


def files() -> list[str]:
    """Their modules, in the order of their places in a map."""
    return sorted(
        os.path.join(PACKAGE, folder, name)
        for folder in CONFINED
        for name in os.listdir(os.path.join(PACKAGE, folder))
        if name.endswith(".py")
    )


def coverage_init(registry: Any, options: Any) -> None:
    """Called by coverage when a process begins to be measured."""
    original = subprocess.Popen.__init__

    def start(self: Any, args: Any, *more: Any, **options: Any) -> None:
        words = [args] if isinstance(args, str | bytes) else [os.fspath(word) for word in args]
        for place, word in enumerate(words):
            if word in PROGRAMS:
                os.makedirs(MAPS, exist_ok=True)
                fd, path = tempfile.mkstemp(dir=MAPS)
                os.close(fd)
                args = [*words[:place], os.path.abspath(__file__), path, *words[place:]]
                environment = dict(os.environ if options.get("env") is None else options["env"])
                environment.pop("COVERAGE_PROCESS_CONFIG", None)  # two tracers would be in each other's way
                options["env"] = environment
                break
        original(self, args, *more, **options)

    subprocess.Popen.__init__ = start  # type: ignore[method-assign]


def save() -> None:
    """Hands what the maps say to coverage, as one more data file to combine."""
    import coverage

    lines = {path: set[int]() for path in files()}
    for entry in os.scandir(MAPS) if os.path.isdir(MAPS) else ():
        with open(entry.path, "rb") as file:
            hits = file.read()
        for place, path in enumerate(files()):
            lines[path] = lines[path] | {
                number for number, hit in enumerate(hits[place * SIZE : (place + 1) * SIZE]) if hit
            }
        os.unlink(entry.path)
    data = coverage.CoverageData(basename=os.path.join(ROOT, ".coverage"), suffix="confined")
    data.add_lines(lines)
    data.write()


def main() -> None:
    """Runs PROGRAM with a trace function that fills MAP."""
    path, program = sys.argv[1:3]
    places = {file: place * SIZE for place, file in enumerate(files())}
    with open(path, "r+b") as file:
        file.truncate(SIZE * len(places))
        hits = mmap.mmap(file.fileno(), 0)
    for fd in os.listdir("/proc/self/fd"):  # the map has a descriptor of its own, which tests would see
        if os.path.realpath(f"/proc/self/fd/{fd}") == path:
            os.close(int(fd))

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        place = places.get(frame.f_code.co_filename)
        if place is None:
            return None
        hits[place + frame.f_lineno] = 1
        return trace

    sys.argv = sys.argv[2:]
    sys.settrace(trace)
    threading.settrace(trace)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
