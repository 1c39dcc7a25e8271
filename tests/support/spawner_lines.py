"""Which lines of the spawner ran, also in the children that it clones and that become containers.

The spawner runs as `python -I -S`, where coverage cannot follow; and its children end in exec or `_exit`, in
another root, where nothing could be saved. So it is started through this file: a trace function sets one byte
for each line in a file that is mapped and shared, which survives clone, exec and SIGKILL alike.

In three roles: a plugin of coverage, which makes every measured process start the spawner so; the program
`python -I -S spawner_lines.py MAP PROGRAM ARGUMENT…`; and `save`, which makes coverage data of the maps.
"""

import mmap
import os
import runpy
import subprocess
import sys
import tempfile
from types import FrameType
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = os.path.join(ROOT, "services/runtime/src/tinyo_runtime/spawner")
MAPS = os.path.join(ROOT, ".coverage-spawner")
#: Bytes of a map for each file of the package: more than it has lines.
SIZE = 4096


def files() -> list[str]:
    """The modules of the spawner, in the order of their places in a map."""
    return sorted(os.path.join(PACKAGE, name) for name in os.listdir(PACKAGE) if name.endswith(".py"))


def coverage_init(registry: Any, options: Any) -> None:
    """Called by coverage when a process begins to be measured."""
    original = subprocess.Popen.__init__

    def start(self: Any, args: Any, *more: Any, **options: Any) -> None:
        if list(args[1:3]) == ["-I", "-S"] and str(args[3]).startswith(PACKAGE):
            os.makedirs(MAPS, exist_ok=True)
            fd, path = tempfile.mkstemp(dir=MAPS)
            os.close(fd)
            args = [*args[:3], os.path.abspath(__file__), path, *args[3:]]
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
    data = coverage.CoverageData(basename=os.path.join(ROOT, ".coverage"), suffix="spawner")
    data.add_lines(lines)
    data.write()


def main() -> None:
    """Runs PROGRAM with a trace function that fills MAP."""
    path, program = sys.argv[1:3]
    places = {file: place * SIZE for place, file in enumerate(files())}
    with open(path, "r+b") as file:
        file.truncate(SIZE * len(places))
        hits = mmap.mmap(file.fileno(), 0)

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        place = places.get(frame.f_code.co_filename)
        if place is None:
            return None
        hits[place + frame.f_lineno] = 1
        return trace

    sys.argv = sys.argv[2:]
    sys.settrace(trace)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
