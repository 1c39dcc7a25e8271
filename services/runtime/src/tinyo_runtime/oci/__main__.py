"""`tinyo-oci`: reads the command line and does what it says; docs/oci.md."""

import argparse
import functools
import json
import os
import sys
import time
from pathlib import Path

from tinyo_runtime.oci import arguments, bundles, execs, launch, lifecycle, listing
from tinyo_runtime.oci.cgroups import Cgroup
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.launch import Console
from tinyo_runtime.oci.parts import Part
from tinyo_runtime.oci.state import Store
from tinyo_runtime.oci.terminal import Terminal


def main() -> None:
    """Exit code 1 for an error, 2 for a wrong command line; run and exec have that of their program."""
    asked = arguments.parser().parse_args()
    try:
        check(asked)
        sys.exit(obey(asked))
    except OciError as error:
        tell(asked, str(error))
    except OSError as error:
        tell(asked, f"{error.filename or 'the kernel'}: {error.strerror or error}")
    sys.exit(1)


def check(asked: argparse.Namespace) -> None:
    """What no command can do. OciError."""
    if asked.systemd_cgroup or asked.cgroup_manager != "cgroupfs":
        raise OciError("cgroups of systemd are not supported: use --cgroup-manager cgroupfs")
    for option in ("no_pivot", "no_new_keyring"):
        if getattr(asked, option, False):
            raise OciError(
                f"--{option.replace('_', '-')} is not supported: it would keep a container in less"
            )
    if os.geteuid() != 0 and asked.command not in ("features", "spec"):
        raise OciError("root is needed: namespaces, mounts and cgroups are made")


def obey(asked: argparse.Namespace) -> int:
    """Does it; the exit code."""
    store = Store(Path(asked.root))
    match asked.command:
        case "create":
            console, _ = console_of(asked, foreground=False, terminal=False)
            options = {"pid_file": asked.pid_file, "console": console, "keep": kept(asked)}
            lifecycle.create(store, asked.id, Path(asked.bundle), **options)
        case "run":
            return run(store, asked)
        case "start":
            lifecycle.start(store, asked.id)
        case "state":
            listing.say(json.dumps(store.described(store.load(asked.id)), indent=2))
        case "kill":
            if not (number := arguments.signal_number(asked.signal)):
                raise OciError(f"{asked.signal!r} is no signal (signal(7))")
            lifecycle.kill(store, asked.id, number, everyone=asked.all)
        case "delete":
            lifecycle.delete(store, asked.id, force=asked.force)
        case "exec":
            return execute(store, asked)
        case "pause" | "resume":
            Cgroup(store.load(asked.id).cgroup).freeze(asked.command == "pause")
        case "list":
            listing.listed(store, asked.format, quiet=asked.quiet)
        case "ps":
            listing.processes(store, asked.id, asked.format, asked.options)
        case "features":
            listing.say(json.dumps(listing.features(), indent=2))
        case "spec":
            listing.write_specification(Path(asked.bundle))
    return 0


def run(store: Store, asked: argparse.Namespace) -> int:
    """A terminal that nobody else takes is ours."""
    bundle = Path(asked.bundle)
    wanted = bundles.read(bundle).part("process").flag("terminal")
    console, terminal = console_of(asked, foreground=not asked.detach, terminal=wanted)
    return execs.run(
        store,
        asked.id,
        bundle,
        detach=asked.detach,
        keep_container=asked.keep,
        pid_file=asked.pid_file,
        console=console,
        terminal=terminal,
        keep=kept(asked),
    )


def execute(store: Store, asked: argparse.Namespace) -> int:
    """A program of a file, or of the command line with the rest as the container's own has it."""
    program = asked.program[1:] if asked.program[:1] == ["--"] else asked.program
    if bool(asked.process) == bool(program):
        raise OciError("exec needs a program, or --process FILE, and not both")
    if asked.process:
        described = dict(Part(bundles.document(Path(asked.process)), asked.process).value)
        process = Part(described | ({"terminal": True} if asked.tty else {}), "process")
    else:
        config = Part(store.config(store.load(asked.id).id), bundles.CONFIG)
        changes = {"cwd": asked.cwd, "env": asked.env, "user": asked.user, "terminal": asked.tty}
        process = execs.described(config, program, **changes)
    wanted = process.flag("terminal")
    console, terminal = console_of(asked, foreground=not asked.detach, terminal=wanted)
    return execs.execute(
        store,
        asked.id,
        process,
        detach=asked.detach,
        pid_file=asked.pid_file,
        console=console,
        terminal=terminal,
        keep=kept(asked),
    )


def console_of(
    asked: argparse.Namespace, *, foreground: bool, terminal: bool
) -> tuple[Console, Terminal | None]:
    """Who takes the terminal of a process: a socket, or we ourselves."""
    if asked.console_socket:
        return functools.partial(launch.send_terminal, asked.console_socket), None
    if foreground and terminal:
        own = Terminal()
        return own.take, own
    return None, None


def kept(asked: argparse.Namespace) -> range:
    """Descriptors that a process gets beside 0, 1 and 2. OciError."""
    for fd in range(3, 3 + asked.preserve_fds):
        try:
            os.fstat(fd)
        except OSError:
            raise OciError(f"--preserve-fds {asked.preserve_fds}: descriptor {fd} is not open") from None
    return range(3, 3 + asked.preserve_fds)


def tell(asked: argparse.Namespace, message: str) -> None:
    """To the terminal, and to the log of whoever called us. What a container named cannot move a cursor."""
    message = "".join(one if one.isprintable() else repr(one)[1:-1] for one in message)
    print(f"tinyo-oci: {message}", file=sys.stderr)
    if asked.log:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f'time="{stamp}" level=error msg={json.dumps(message)}'
        if asked.log_format == "json":
            line = json.dumps({"msg": message, "level": "error", "time": stamp})
        try:
            with open(asked.log, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            print(f"tinyo-oci: --log {asked.log}: {error.strerror}", file=sys.stderr)


if __name__ == "__main__":
    main()
