"""Every command that there is, with all its options."""

import argparse
import importlib
import sys
from typing import Any

from tinyo_ctl import options
from tinyo_ctl.arguments import Command, parse


def run(words: list[str], host: str) -> int:
    """Runs what a command line asks for, if who asks may; its exit code. `host` is the node unless it says another."""
    command, options = parse(COMMANDS, words or ["--help"], host)
    if not command.local:
        from tinyo_ctl import access

        access.check(options.host)
    module, _, function = command.run.partition(":")
    code: int = getattr(importlib.import_module(f"tinyo_ctl.{module}"), function)(options)
    sys.stdout.flush()
    return code


def apply(options: argparse.Namespace) -> int:
    """`tinyo +`."""
    # Only here, as below: the other commands do without.
    from tinyo_ctl import changes

    return changes.apply(options.files, options.host)


def remove(options: argparse.Namespace) -> int:
    """`tinyo -`."""
    from tinyo_ctl import changes

    return changes.remove(options.targets, options.host, options.time)


def flag(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One argument of a command, as `ArgumentParser.add_argument` takes it."""
    return names, settings


def count(text: str) -> int:
    """A number from 0 to 2³¹ on the command line."""
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 upwards")
    return int(text)


def seconds(text: str) -> int:
    """Milliseconds of so many seconds; a day is the most."""
    if (number := count(text)) > 86400:
        raise argparse.ArgumentTypeError(f"{text} is more than a day (86400)")
    return number * 1000


def when(text: str) -> Any:
    """A time on the command line."""
    from tinyo_ctl import logs

    return logs.when(text)


def detach_keys(text: str) -> bytes:
    """Keys on the command line."""
    from tinyo_ctl import detaching

    return detaching.keys(text)


def truth(text: str) -> bool:
    """true or false on the command line."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


NAMES = flag("names", nargs="+", metavar="NAME", help="name or id")
GRACE = flag(
    "-t", "--time", type=seconds, metavar="SECONDS", help="before it is killed (default: stop_grace, 10)"
)
FOLLOW = flag("-f", "--follow", action="store_true", help="go on with what comes")

DETACH = flag(
    "--detach-keys",
    type=detach_keys,
    default="ctrl-p,ctrl-q",
    metavar="KEYS",
    help='leave a terminal with these (default: ctrl-p,ctrl-q); "" for none',
)

SIG_PROXY = flag(
    "--sig-proxy",
    type=truth,
    default=True,
    metavar="true|false",
    help="pass signals on, when it has no terminal (default: true)",
)

COMMANDS = (
    Command(
        ("+", "apply"),
        "bring up what Statefiles say",
        "commands:apply",
        "  tinyo + web.yml                       changes only what differs\n"
        "  tinyo + web.yml db.yml                all of them are read before anything is done\n"
        "  generate | tinyo + -                  from standard input; it must say a name",
        [flag("files", nargs="+", metavar="FILE", help="a Statefile, or - for standard input")],
    ),
    Command(
        ("-", "rm"),
        "take away what Statefiles brought up, or containers",
        "commands:remove",
        "  tinyo - web.yml                       all that came from it; the file itself may be gone\n"
        "  tinyo - web db -t 30                  by name, with half a minute to end",
        [
            flag("targets", nargs="+", metavar="FILE|NAME", help="a Statefile, or a name or id"),
            GRACE,
        ],
    ),
    Command(
        ("ls", "ps"),
        "list containers",
        "containers:show",
        "  tinyo ls -a -o wide                   everything, with ids and files\n"
        "  tinyo ls -o json | jq '.[].status'    for programs",
        [
            flag("-a", "--all", action="store_true", help="those that were stopped, too"),
            flag("-o", "--output", choices=("wide", "name", "json", "yaml"), help="how (default: a table)"),
        ],
    ),
    Command(
        ("logs",),
        "show what containers write",
        "logs:show",
        "  tinyo logs -f -n 20 web               the last 20 lines, and what comes\n"
        "  tinyo logs web >out 2>err             its two streams stay apart\n"
        "  tinyo logs -f web db                  both, each line with its name\n"
        "  tinyo logs --since 10m --until 5m web\n"
        "  tinyo logs -o json web | jq .text     for programs",
        [
            flag("names", nargs="+", metavar="NAME", help="name or id"),
            FOLLOW,
            flag("-n", "--lines", type=count, metavar="N", help="only the last N lines"),
            flag(
                "--since", type=when, metavar="TIME", help="only from then on: 10m (ago), or a date and time"
            ),
            flag("--until", type=when, metavar="TIME", help="only before that"),
            flag("-t", "--timestamps", action="store_true", help="when each line came, in UTC"),
            flag("-o", "--output", choices=("json",), help="an object a line (default: as it was written)"),
        ],
    ),
    Command(
        ("exec",),
        "run a program in a container",
        "streams:execute",
        "  tinyo exec web -- ls -l /\n"
        "  tinyo exec -it web -- sh              a shell to work in; Ctrl-D or `exit` leaves it\n"
        "  tinyo exec web -- tar -c /data >data.tar",
        [
            flag("-i", "--interactive", action="store_true", help="send standard input, as is always done"),
            flag("-t", "--tty", action="store_true", help="give it a terminal: the one on standard input"),
            flag(
                "--detach-keys",
                type=detach_keys,
                default="",
                metavar="KEYS",
                help="with -t: leave it with these, as in ctrl-p,ctrl-q, and let it go on (default: none)",
            ),
            flag("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable to add"),
            flag("-w", "--workdir", default="", metavar="PATH", help="working directory"),
            flag("-u", "--user", default="", metavar="USER", help="user, or user:group"),
            flag("name", metavar="NAME", help="name or id"),
            flag("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="program and arguments"),
        ],
    ),
    Command(
        ("run",),
        "run one container, here and now",
        "running:run",
        "  tinyo run --rm -it alpine sh          a shell in a new container, which is gone afterwards\n"
        "  tinyo run --rm -i alpine sort <names >sorted\n"
        "  tinyo run -d --name web -p 8080:80 -v ./site:/srv nginx\n"
        "  tinyo run -e DEBUG=1 -u 1000 -w /srv team/app:2 -- ./check --all\n"
        "  tinyo run --rm -it --entrypoint sh --read-only --tmpfs /tmp --memory 512m team/app:2",
        [
            flag("--rm", action="store_true", help="take it away when it has ended"),
            flag(
                "-i", "--interactive", action="store_true", help="send standard input (default: it has none)"
            ),
            flag("-t", "--tty", action="store_true", help="give it a terminal"),
            flag("-d", "--detach", action="store_true", help="say its name when it runs, and leave it alone"),
            flag("--name", default="", metavar="NAME", help="default: the image's, and something of its own"),
            flag(
                "-e",
                "--env",
                action="append",
                default=[],
                metavar="NAME[=VALUE]",
                help="a variable; without a value: that of this shell",
            ),
            flag(
                "-p",
                "--publish",
                action="append",
                default=[],
                metavar="PORT",
                help="as `port` in a Statefile: 8080:80",
            ),
            flag(
                "-v",
                "--volume",
                action="append",
                default=[],
                metavar="SOURCE:TARGET",
                help="as `mounts` in a Statefile: ./data:/data:ro, or a volume's name",
            ),
            flag("-w", "--workdir", default="", metavar="PATH", help="working directory"),
            flag("-u", "--user", default="", metavar="USER", help="user, or user:group"),
            flag(
                "--env-file",
                action="append",
                default=[],
                metavar="FILE",
                help="variables, a line each; -e counts before them",
            ),
            *(one.argument() for one in options.OPTIONS),
            DETACH,
            SIG_PROXY,
            flag("image", metavar="IMAGE", help="which is pulled when it is not there"),
            flag("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="program and arguments"),
        ],
    ),
    Command(
        ("attach",),
        "come to a container's own streams, or its terminal",
        "attaching:attach",
        "  tinyo attach shell                    with `tty: true`: its terminal; Ctrl-P Ctrl-Q leaves it\n"
        "  tinyo attach --no-stdin web           only see what it writes; Ctrl-C is still the container's\n"
        "  tinyo attach --sig-proxy=false web    Ctrl-C only ends this",
        [
            flag("--no-stdin", action="store_true", help="send no input"),
            DETACH,
            SIG_PROXY,
            flag("name", metavar="NAME", help="name or id"),
        ],
    ),
    Command(
        ("stop",),
        "stop containers; they stay",
        "containers:stop",
        "  tinyo stop web -t 30                  with half a minute to end",
        [NAMES, GRACE],
    ),
    Command(
        ("start",),
        "start stopped containers",
        "containers:start",
        "  tinyo start web db",
        [NAMES],
    ),
    Command(
        ("restart",),
        "stop containers, and start them again",
        "verbs:restart",
        "  tinyo restart web -t 30               with half a minute to end; one that was stopped just starts",
        [NAMES, GRACE],
    ),
    Command(
        ("kill",),
        "send a signal to the first process of containers",
        "verbs:kill",
        "  tinyo kill web                        ends it at once, and for good: no restart policy applies\n"
        "  tinyo kill -s HUP web                 by name (HUP, SIGHUP, RTMIN+1) or number (1)",
        [
            NAMES,
            flag("-s", "--signal", default="KILL", metavar="SIGNAL", help="which one (default: KILL)"),
        ],
    ),
    Command(
        ("wait",),
        "wait until containers end, and print their exit codes",
        "waiting:wait",
        "  code=$(tinyo wait job)                at once if it has ended already\n"
        "  tinyo wait job-1 job-2                as they end, each with its name",
        [NAMES],
    ),
    Command(
        ("pause",),
        "let no process of containers run for a while",
        "verbs:pause",
        "  tinyo pause web                       memory, files, addresses and ports stay as they are",
        [NAMES],
    ),
    Command(
        ("unpause",),
        "let paused containers go on",
        "verbs:unpause",
        "  tinyo unpause web                     stop, restart, kill and rm do so by themselves",
        [NAMES],
    ),
    Command(
        ("rename",),
        "give a container another name",
        "verbs:rename",
        "  tinyo rename web shop                 others find it as shop from now on; it goes on running",
        [
            flag("name", metavar="OLD", help="name or id"),
            flag("new", metavar="NEW", help="the name from now on; its Statefile must say so, too"),
        ],
    ),
    Command(
        ("top",),
        "show the processes of a container",
        "top:show",
        "  tinyo top web\n  tinyo top -o json web | jq '.[].command'       for programs",
        [
            flag("name", metavar="NAME", help="name or id"),
            flag("-o", "--output", choices=("json",), help="how (default: a table)"),
        ],
    ),
    Command(
        ("port",),
        "show where ports of a container are published",
        "verbs:port",
        "  tinyo port web                        80/tcp -> 0.0.0.0:8080\n"
        "  tinyo port web 80                     0.0.0.0:8080",
        [
            flag("name", metavar="NAME", help="name or id"),
            flag("port", nargs="?", metavar="PORT[/udp]", help="of the container (default: all)"),
        ],
    ),
    Command(
        ("update",),
        "change what containers may take of the machine, while they run",
        "limits:update",
        "  tinyo update web --memory 1g --cpus 1.5\n"
        "  tinyo update web db --pids none       none takes a limit away",
        [NAMES, *(one.argument() for one in options.LIMITS)],
    ),
    Command(
        ("stats",),
        "show what containers take of the machine",
        "stats:show",
        "  tinyo stats                           all that run, every second\n"
        "  tinyo stats --no-stream web db        once\n"
        "  tinyo stats -o json | jq .cpu_percent      for programs: an object for each, every second",
        [
            flag("names", nargs="*", metavar="NAME", help="name or id (default: all that run)"),
            flag("--no-stream", action="store_true", help="once, after half a second"),
            flag("-o", "--output", choices=("json",), help="how (default: a table)"),
        ],
    ),
    Command(
        ("inspect",),
        "show all that is known of containers, and what the kernel says of them",
        "inspecting:inspect",
        "  tinyo inspect web                     namespaces, capabilities, system calls, limits, mounts\n"
        "  tinyo inspect -o json web db | jq '.[].inspection.capabilities'      for programs",
        [NAMES, flag("-o", "--output", choices=("json", "yaml"), help="how (default: for people)")],
    ),
    Command(
        ("events",),
        "show what happened",
        "containers:events",
        "  tinyo events -f                       from the oldest that is kept, and what comes\n"
        "  tinyo events --after 120 web          only of web, only later than number 120",
        [
            flag("names", nargs="*", metavar="NAME", help="only about these"),
            FOLLOW,
            flag("--after", type=count, default=0, metavar="N", help="only after event number N"),
        ],
    ),
    Command(
        ("cp",),
        "copy files into a container, or out of it",
        "copying:copy",
        "  tinyo cp web:/etc/app.conf .          it need not run\n"
        "  tinyo cp site/. web:/srv              what is in a folder, and not the folder itself\n"
        "  tinyo cp web:/srv - | tar -t          as a tar; `tinyo cp - web:/srv` takes one",
        [
            flag(
                "-a", "--archive", action="store_true", help="keep owners (default: root's there, yours here)"
            ),
            flag(
                "-L", "--follow-link", action="store_true", help="when the source is a link, what it leads to"
            ),
            flag("source", metavar="NAME:PATH|PATH|-", help="from where"),
            flag("target", metavar="PATH|-|NAME:PATH", help="a folder that is there, or a new name"),
        ],
    ),
    Command(
        ("commit",),
        "make an image of a container",
        "commit:commit",
        "  tinyo commit web team/web:2           what web changed is a layer on its image\n"
        "  tinyo commit -c 'CMD [\"serve\"]' -c 'ENV MODE=live' -m 'as tested' web team/web:2",
        [
            flag("-a", "--author", default="", metavar="NAME", help="who made it"),
            flag(
                "-c",
                "--change",
                action="append",
                default=[],
                metavar="INSTRUCTION",
                help="a line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, "
                "WORKDIR",
            ),
            flag(
                "-m", "--message", default="", metavar="TEXT", help="what it is for; `image history` shows it"
            ),
            flag("--no-pause", action="store_true", help="do not pause the container while it is read"),
            flag(
                "--compression", choices=("gzip", "zstd"), default="gzip", help="of the layer (default: gzip)"
            ),
            flag("name", metavar="NAME", help="name or id"),
            flag("image", metavar="IMAGE", help="its reference; an image that had it loses it"),
        ],
    ),
    Command(
        ("volume ls",),
        "list volumes",
        "volumes:show",
        "  tinyo volume ls                       with the containers that use them",
        [flag("-o", "--output", choices=("name",), help="how (default: a table)")],
    ),
    Command(
        ("volume create",),
        "make volumes",
        "volumes:create",
        "  tinyo volume create data              a Statefile makes those that it names by itself",
        [flag("names", nargs="+", metavar="NAME", help="what they are called")],
    ),
    Command(
        ("volume rm",),
        "remove volumes, with all that is in them",
        "volumes:remove",
        "  tinyo volume rm data                  refused while a container uses it, be it a stopped one",
        [flag("names", nargs="+", metavar="NAME", help="name of a volume")],
    ),
    Command(
        ("volume inspect",),
        "show where a volume is, how large, and who uses it",
        "volumes:inspect",
        "  tinyo volume inspect data | jq -r .path",
        [flag("name", metavar="NAME", help="name of a volume")],
    ),
    Command(
        ("volume prune",),
        "remove all volumes that no container uses",
        "volumes:prune",
        "  tinyo volume prune                    shows them and asks\n"
        "  tinyo volume prune -f                 without asking",
        [flag("-f", "--force", action="store_true", help="do not ask")],
    ),
    Command(
        ("image ls",),
        "list images",
        "images:show",
        "  tinyo image ls",
        [flag("-o", "--output", choices=("name",), help="how (default: a table)")],
    ),
    Command(
        ("image pull",),
        "fetch images",
        "pulling:pull",
        "  tinyo image pull alpine:3.20\n"
        "  tinyo image pull alpine debian        at the same time; layers that both have are fetched once\n"
        "  tinyo image pull --platform linux/arm64 alpine\n"
        "  tinyo image pull -o json alpine       how far it is, for programs: an object a line",
        [
            flag("references", nargs="+", metavar="IMAGE"),
            flag("--platform", default="", metavar="OS/ARCH[/VARIANT]", help="default: this machine's"),
            flag("-o", "--output", choices=("json",), help="how (default: for people)"),
        ],
    ),
    Command(
        ("image push",),
        "bring an image to a registry",
        "pushing:push",
        "  tinyo image push registry.example.com/team/app:1.2\n"
        "  tinyo image push app:1.2 registry.example.com/team/app      it need not have that name here\n"
        "  tinyo image push -o json app:1.2 registry.example.com/team/app",
        [
            flag("reference", metavar="IMAGE", help="reference or digest of an image that is here"),
            flag(
                "target", nargs="?", default="", metavar="REFERENCE", help="where to (default: as IMAGE says)"
            ),
            flag("-o", "--output", choices=("json",), help="how (default: for people)"),
        ],
    ),
    Command(
        ("image rm",),
        "remove images",
        "images:remove",
        "  tinyo image rm alpine:3.19",
        [flag("references", nargs="+", metavar="IMAGE", help="reference or digest")],
    ),
    Command(
        ("image inspect",),
        "show what an image is, as JSON",
        "inspection:inspect",
        "  tinyo image inspect alpine            by reference, or by digest\n"
        "  tinyo image inspect alpine | jq .config",
        [flag("reference", metavar="IMAGE", help="reference or digest")],
    ),
    Command(
        ("image history",),
        "show how an image was made, the newest step first",
        "inspection:history",
        "  tinyo image history alpine",
        [flag("reference", metavar="IMAGE", help="reference or digest")],
    ),
    Command(
        ("image tag",),
        "give an image a further reference",
        "housekeeping:tag",
        "  tinyo image tag alpine registry.example.com/team/base:1",
        [
            flag("reference", metavar="IMAGE", help="reference or digest"),
            flag("new", metavar="NEW", help="the further reference; an image that had it loses it"),
        ],
    ),
    Command(
        ("image import",),
        "make images of an archive",
        "archives:import_images",
        "  docker save app:1 | tinyo image import -\n"
        "  tinyo image import app.tar.zst                  all images that are in it, with their names\n"
        "  tinyo image import bundle.tar app:1 db:2        only these\n"
        "  tinyo image import ./layout --name app:2        the folder of an OCI layout\n"
        "  tinyo image import rootfs.tar.gz --name base:1 -c 'CMD [\"/bin/sh\"]' -c 'ENV LANG=C.UTF-8'",
        [
            flag(
                "file",
                metavar="FILE",
                help="an OCI layout or what docker saved, as a tar (plain, gzip, zstd) or a folder; the tar of a "
                "root file system; - for standard input",
            ),
            flag("references", nargs="*", metavar="IMAGE", help="reference or digest (default: all in FILE)"),
            flag(
                "--name", default="", metavar="NAME", help="reference of the image (default: those in FILE)"
            ),
            flag(
                "-c",
                "--change",
                action="append",
                default=[],
                metavar="INSTRUCTION",
                help="for a root file system: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or "
                "WORKDIR, as in a Dockerfile; may be repeated",
            ),
            flag(
                "--platform",
                default="",
                metavar="OS/ARCH",
                help="default: this machine's, or the only one there is",
            ),
        ],
    ),
    Command(
        ("image export",),
        "write images into an archive",
        "archives:export_images",
        "  tinyo image export app:1 db:2 -o bundle.tar     what they share is in it once\n"
        "  tinyo image export app:1 | zstd >app.tar.zst    or to `docker load`, `podman load`\n"
        "  tinyo image export app:1 --layout ./layout      a folder, for umoci and others",
        [
            flag("references", nargs="+", metavar="IMAGE", help="reference or digest"),
            flag("-o", "--output", default="", metavar="FILE", help="default: standard output"),
            flag("--layout", default="", metavar="FOLDER", help="as the folder of an OCI layout"),
        ],
    ),
    Command(
        ("image prune",),
        "remove images that nobody needs",
        "housekeeping:prune",
        "  tinyo image prune                     those without a reference, and what is left of others\n"
        "  tinyo image prune -a -f               all that no container uses, without asking",
        [
            flag(
                "-a",
                "--all",
                action="store_true",
                help="also those with a reference, unless a container uses them",
            ),
            flag("-f", "--force", action="store_true", help="do not ask (asked is only on a terminal)"),
        ],
    ),
    Command(
        ("image du",),
        "show what images take on the disk",
        "housekeeping:usage",
        "  tinyo image du                        what several images share is there once",
    ),
    Command(
        ("image verify",),
        "read images again and look for damage",
        "housekeeping:verify",
        "  tinyo image verify                    all; exit code 1 names what is corrupt\n"
        "  tinyo image verify alpine             then `tinyo image pull alpine` fetches that again",
        [flag("references", nargs="*", metavar="IMAGE", help="reference or digest (default: all)")],
    ),
    Command(
        ("login",),
        "log in to a registry",
        "accounts:login",
        "  tinyo login registry.example.com      asks for user and password\n"
        "  tinyo login -u me --password-stdin docker.io <file",
        [
            flag("registry", metavar="REGISTRY", help="host or host:port; docker.io is Docker Hub"),
            flag("-u", "--username", default="", metavar="USER", help="default: ask"),
            flag("--password-stdin", action="store_true", help="the password is standard input"),
        ],
    ),
    Command(
        ("logout",),
        "log out of a registry",
        "accounts:logout",
        "  tinyo logout registry.example.com",
        [flag("registry", metavar="REGISTRY", help="host or host:port")],
    ),
    Command(
        ("services start",),
        "start the services",
        "daemons:start",
        "  tinyo services start                  other commands do it by themselves",
    ),
    Command(
        ("services stop",),
        "stop the services; containers go on",
        "daemons:stop",
        "  tinyo services stop && tinyo services start",
    ),
    Command(
        ("services status",),
        "show which services run",
        "daemons:status",
        "  tinyo services status                 exit code 3 unless all of them answer",
    ),
    Command(
        ("services logs",),
        "show what the services said",
        "daemons:logs",
        "  tinyo services logs -f",
        [
            FOLLOW,
            flag("-n", "--lines", type=count, default=50, metavar="N", help="of each (default: 50)"),
        ],
    ),
    Command(
        ("doctor",),
        "show which defences and needs of this machine are on, off or impossible",
        "doctor:doctor",
        "  tinyo doctor                          exit code 1 when something is off that should be on\n"
        "  tinyo doctor --attack                 tries to break out of containers made for that\n"
        "  tinyo doctor -o json | jq 'select(.state == \"off\")'    for programs: an object a line",
        [
            flag("--attack", action="store_true", help="attack this machine from inside of containers"),
            flag("-o", "--output", choices=("json",), help="how (default: for people)"),
        ],
    ),
    Command(
        ("version",),
        "show versions",
        "daemons:version",
        "  tinyo version                         of the services, too, when they run",
        local=True,
    ),
    Command(
        ("completion",),
        "print a script that completes commands",
        "completion:completion",
        "  source <(tinyo completion bash)       in ~/.bashrc; likewise for zsh in ~/.zshrc\n"
        "  tinyo completion fish | source        in ~/.config/fish/config.fish",
        [flag("shell", choices=("bash", "zsh", "fish"))],
        local=True,
    ),
)
