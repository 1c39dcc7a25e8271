"""The command line, as runc and crun have it, since others call it: podman, conmon, containerd."""

import argparse
import signal

from tinyo_runtime.oci.state import VERSION

ROOT = "/run/tinyo-oci"
EXAMPLES = """\
examples:
  umoci unpack --image image:latest bundle
  tinyo-oci run --bundle bundle web                    # until it ends, with its exit code
  tinyo-oci create --bundle bundle --pid-file web.pid web && tinyo-oci start web
  tinyo-oci exec -t web sh
  tinyo-oci kill web TERM && tinyo-oci delete web
  podman --runtime "$(command -v tinyo-oci)" --cgroup-manager cgroupfs run IMAGE
"""


def parser() -> argparse.ArgumentParser:
    """Options before the command count for all of them."""
    made = argparse.ArgumentParser(
        prog="tinyo-oci",
        description="Runs containers of OCI bundles (runtime specification 1.2). It needs root.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("-v", "--version", action="version", version=f"tinyo-oci 0.1.0\nspec: {VERSION}")
    made.add_argument(
        "--root", default=ROOT, metavar="FOLDER", help=f"where containers are remembered ({ROOT})"
    )
    made.add_argument("--log", default="", metavar="FILE", help="where errors are written to as well")
    made.add_argument("--log-format", default="text", choices=("text", "json"), help="of that file (text)")
    made.add_argument("--log-level", default="warning", help=argparse.SUPPRESS)
    made.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    made.add_argument(
        "--cgroup-manager", default="cgroupfs", metavar="NAME", help="cgroupfs, which is all there is"
    )
    made.add_argument("--systemd-cgroup", action="store_true", help="refused: use cgroupfs")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text.capitalize() + ".", allow_abbrev=False)

    for name, text in (
        ("create", "make a container of a bundle, and let its process wait"),
        ("run", "create and start a container, wait for it, and delete it"),
    ):
        one = command(name, text)
        one.add_argument("-b", "--bundle", default=".", metavar="FOLDER", help="with config.json (.)")
        _process(one)
        one.add_argument("--no-pivot", action="store_true", help="refused: the root is always left for good")
        one.add_argument("--no-new-keyring", action="store_true", help="refused: each has keys of its own")
        if name == "run":
            one.add_argument("-d", "--detach", action="store_true", help="do not wait for it")
            one.add_argument("--keep", action="store_true", help="do not delete it when it has ended")
        one.add_argument("id", metavar="ID")
    command("start", "let the program of a created container begin").add_argument("id", metavar="ID")
    command("state", "say as JSON how a container is").add_argument("id", metavar="ID")
    one = command("kill", "send a signal to a container")
    one.add_argument("-a", "--all", action="store_true", help="to all of its processes")
    one.add_argument("id", metavar="ID")
    one.add_argument("signal", nargs="?", default="TERM", metavar="SIGNAL", help="name or number (TERM)")
    one = command("delete", "take away a container that has ended")
    one.add_argument("-f", "--force", action="store_true", help="kill it first; none is no error")
    one.add_argument("id", metavar="ID")
    one = command("exec", "run a further program in a container")
    _process(one)
    one.add_argument("-p", "--process", default="", metavar="FILE", help="JSON, as `process` in config.json")
    one.add_argument("-d", "--detach", action="store_true", help="do not wait for it")
    one.add_argument("-t", "--tty", action="store_true", help="with a terminal")
    one.add_argument("-u", "--user", default="", metavar="UID[:GID]", help="another than the container's")
    one.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="one more variable"
    )
    one.add_argument("--cwd", default="", metavar="FOLDER", help="another working directory")
    one.add_argument("id", metavar="ID")
    one.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM …")
    for name, text in (("pause", "stop all processes of a container"), ("resume", "let them go on")):
        command(name, text).add_argument("id", metavar="ID")
    one = command("list", "show all containers")
    one.add_argument("-f", "--format", default="table", choices=("table", "json"))
    one.add_argument("-q", "--quiet", action="store_true", help="ids alone")
    one = command("ps", "show the processes of a container")
    one.add_argument("-f", "--format", default="table", choices=("table", "json"))
    one.add_argument("id", metavar="ID")
    one.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTIONS OF ps")
    command("features", "say as JSON what bundles may ask for")
    one = command("spec", "write a config.json to begin with")
    one.add_argument("-b", "--bundle", default=".", metavar="FOLDER", help="where (.)")
    return made


def _process(one: argparse.ArgumentParser) -> None:
    """What create, run and exec have in common."""
    one.add_argument(
        "--console-socket", default="", metavar="PATH", help="who gets the master of the terminal"
    )
    one.add_argument("--pid-file", default="", metavar="FILE", help="gets the number of the process")
    one.add_argument(
        "--preserve-fds",
        type=int,
        default=0,
        metavar="N",
        help="descriptors from 3 on that are passed on (0)",
    )


def signal_number(text: str) -> int | None:
    """Of a name, with SIG or without, or a number; None when it is no signal."""
    if text.isdecimal():
        return int(text) if 0 < int(text) < signal.NSIG else None
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    found = signal.Signals.__members__.get(name)
    return int(found) if found else None
