"""Statefiles: what people write, and the ContainerSpec that it stands for.

    statefile = load("examples/basic/alpine-1.yml")
    statefile.spec.image            # "alpine:latest"
    statefile.place("containers[0].ports[0].host_port")    # Place(line=3, column=7)

Checked here is only what has to be understood to build the spec; all the rest is the node's to check, for
every client alike, and its answers find their line through `place`. Values are taken as they are written:
YAML's opinions (`22:22` is 1342, `no` is false) do not apply to them.
"""

import ipaddress
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

import yaml
from tinyo.v1.container_pb2 import ContainerSpec, Mount, Port, Protocol

from tinyo_ctl import Failure
from tinyo_ctl.diagnose import describe, unknown

#: Bytes of a Statefile (the contract's limit), and how many aliases it may use.
SIZE_LIMIT, ALIAS_LIMIT = 1 << 20, 100
#: Depth of nesting that is read at all; a Statefile needs four.
DEPTH_LIMIT = 32
#: Keys whose value is one text, and the field of the spec that it becomes.
TEXTS = {"container": "image", "name": "name", "workdir": "workdir", "user": "user"}
KEYS = (*TEXTS, "command", "env", "port", "mounts")
MOUNT_KEYS = ("source", "target", "read_only", "create")
PORT = re.compile(r"(?:(?:([0-9.]+):)?([0-9]{1,5}):)?([0-9]{1,5})(?:/(tcp|udp))?")


class Place(NamedTuple):
    """Where something stands in a file, from 1; line 0 is the file as a whole."""

    line: int
    column: int


class Mistake(NamedTuple):
    """What is wrong, and where."""

    place: Place
    message: str


class StatefileError(Failure):
    """A Statefile has mistakes; all of them are in the text."""

    exit_code = 2

    def __init__(self, path: str, text: str, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(mistakes)
        super().__init__("\n".join(describe(path, text, *mistake) for mistake in self.mistakes))


@dataclass(frozen=True)
class Statefile:
    """One Statefile, understood."""

    #: As the user gave it, and as the node knows it.
    path: str
    origin: str
    text: str
    spec: ContainerSpec
    #: Where each field of the spec stands: "ports[0]", "mounts[1].source".
    places: dict[str, Place]

    def place(self, field: str) -> Place:
        """Where a field of the request ("containers[0].mounts[1].source") stands, or what it is part of."""
        field = field.removeprefix("containers[0].")
        while field and field not in self.places:
            field = re.sub(r"(^|\.?)[^.\[]*$|\[[^\[]*$", "", field)
        return self.places.get(field, Place(0, 0))


def load(path: str) -> Statefile:
    """Reads a Statefile, "-" from standard input. StatefileError when anything is wrong with it."""
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            text = _text(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StatefileError(path, "", [Mistake(Place(0, 0), str(reason))]) from None
    origin = "-" if path == "-" else os.path.realpath(path)
    reader = _Reader(os.getcwd() if path == "-" else os.path.dirname(origin))
    try:
        _limit(text)
        reader.document(yaml.compose(text, Loader=yaml.CSafeLoader), os.path.basename(path))
    except yaml.MarkedYAMLError as error:
        reader.mistake(error.problem_mark or error.context_mark, f"{error.problem or 'this is not YAML'}")
    except yaml.YAMLError as error:
        reader.mistake(None, str(error).splitlines()[0])
    if reader.mistakes:
        raise StatefileError(path, text, reader.mistakes)
    return Statefile(path, origin, text, reader.spec, reader.places)


def _text(file: IO[bytes]) -> str:
    """The file's text. ValueError when it is too long or not UTF-8."""
    content = file.read(SIZE_LIMIT + 1)
    if len(content) > SIZE_LIMIT:
        raise ValueError("the file is larger than 1 MiB")
    return content.decode("utf-8-sig")


def _limit(text: str) -> None:
    """MarkedYAMLError when a text nests too deeply or uses too many aliases to be a Statefile."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEPTH_LIMIT or aliases > ALIAS_LIMIT:
            excess = f"this nests more than {DEPTH_LIMIT} deep"
            if aliases > ALIAS_LIMIT:
                excess = f"there are more than {ALIAS_LIMIT} aliases"
            raise yaml.MarkedYAMLError(problem=excess, problem_mark=event.start_mark)  # type: ignore[arg-type]


class _Reader:
    """Turns the nodes of one document into a spec; collects mistakes instead of ending at the first."""

    def __init__(self, folder: str) -> None:
        self.folder, self.spec = folder, ContainerSpec()
        self.mistakes: list[Mistake] = []
        self.places: dict[str, Place] = {}

    def document(self, node: yaml.Node | None, filename: str) -> None:
        """The whole: one mapping."""
        values = self.mapping(node, KEYS)
        if "container" not in values:
            self.mistake(
                node, "'container' is missing: it names the image, as in container: \"alpine:latest\""
            )
        for key, value in values.items():
            if key in TEXTS:
                setattr(self.spec, TEXTS[key], self.text(value, TEXTS[key]))
            else:
                getattr(self, key)(value)
        if "name" not in values:
            stem = os.path.splitext(filename)[0].lower()
            self.spec.name = re.sub(r"[^a-z0-9_.-]+", "-", stem).strip("_.-")[:63]
            if not self.spec.name:
                self.mistake(node, "'name' is missing, and the file's name cannot stand for it")

    def command(self, node: yaml.Node) -> None:
        """Words, or one text that is split as a shell would."""
        if isinstance(node, yaml.SequenceNode):
            self.spec.command.extend(self.text(item, path) for item, path in self.items(node, "command"))
            return
        try:
            self.spec.command.extend(shlex.split(self.text(node, "command")))
        except ValueError as error:
            self.mistake(node, f"the command cannot be split into words: {str(error).lower()}")

    def env(self, node: yaml.Node) -> None:
        """NAME: value, or a list of NAME=value."""
        if isinstance(node, yaml.MappingNode):
            for name, value in self.mapping(node).items():
                self.spec.env[name] = self.text(value, f"env[{name}]")
            return
        for item, path in self.items(node, "env"):
            name, equals, text = self.text(item, path).partition("=")
            if not (name and equals):
                self.mistake(item, "an environment variable is written NAME=value")
            elif name in self.spec.env:
                self.mistake(item, f"{name!r} is there twice")
            else:
                self.spec.env[name], self.places[f"env[{name}]"] = text, self.places[path]

    def port(self, node: yaml.Node) -> None:
        """One port, or several."""
        for item, path in self.items(node, "ports"):
            try:
                self.spec.ports.append(port(self.text(item, path)))
            except ValueError as error:
                self.mistake(item, str(error))

    def mounts(self, node: yaml.Node) -> None:
        """Mounts, each as a mapping or in short."""
        for item, path in self.items(node, "mounts"):
            if isinstance(item, yaml.MappingNode):
                values = self.mapping(item, MOUNT_KEYS)
                for missing in {"source", "target"} - set(values):
                    self.mistake(item, f"{missing!r} of the mount is missing")
                mount = Mount()
                for key in values.keys() & {"source", "target"}:
                    setattr(mount, key, self.text(values[key], f"{path}.{key}"))
                for key in values.keys() & {"read_only", "create"}:
                    setattr(mount, key, self.truth(values[key]))
            else:
                source, _, rest = self.text(item, path).partition(":")
                target, _, mode = rest.partition(":")
                if not (source and target) or mode not in ("", "ro"):
                    self.mistake(item, "a mount is written source:target or source:target:ro")
                mount = Mount(source=source, target=target, read_only=mode == "ro")
            mount.source = os.path.normpath(os.path.join(self.folder, os.path.expanduser(mount.source)))
            self.spec.mounts.append(mount)

    def mapping(self, node: yaml.Node | None, allowed: tuple[str, ...] = ()) -> dict[str, yaml.Node]:
        """Values by key; what is no mapping, and keys that are not allowed or there twice, are mistakes."""
        values: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            self.mistake(node, "here must stand 'key: value' lines")
            return values
        for key, value in node.value:
            name = self.text(key, "")
            if name in values:
                self.mistake(key, f"{name!r} is there twice")
            elif allowed and name not in allowed:
                self.mistake(key, unknown("key", name, allowed))
            else:
                values[name] = value
        return values

    def items(self, node: yaml.Node, path: str) -> Iterator[tuple[yaml.Node, str]]:
        """Each item of a list with its path; something that is no list is a list of one."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        self.places[path] = _place(node)
        for index, item in enumerate(nodes):
            self.places[f"{path}[{index}]"] = _place(item)
            yield item, f"{path}[{index}]"

    def text(self, node: yaml.Node, path: str) -> str:
        """A value as it is written."""
        self.places[path] = _place(node)
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self.mistake(node, "here must stand one value")
        return ""

    def truth(self, node: yaml.Node) -> bool:
        """true or false."""
        if self.text(node, "") not in ("true", "false"):
            self.mistake(node, "here must stand true or false")
        return bool(node.value == "true")

    def mistake(self, at: yaml.Node | yaml.Mark | None, message: str) -> None:
        """Notes what is wrong at a node or a mark."""
        self.mistakes.append(Mistake(_place(at), message))


def port(text: str) -> Port:
    """A published port: "80", "8080:80", "127.0.0.1:8080:80", each also with "/udp". ValueError with a sentence."""
    if not (match := PORT.fullmatch(text)):
        raise ValueError(
            f'{text!r} is no port: write 8080, "8080:80" (host:container) or "127.0.0.1:8080:80", '
            "with /udp behind it if it is not TCP"
        )
    address, host, inside, protocol = match.groups()
    for number in (host or inside, inside):
        if not 1 <= int(number) <= 65535:
            raise ValueError(f"{number} is no port: ports go from 1 to 65535")
    if address:
        ipaddress.IPv4Address(address)
    return Port(
        host_ip=address or "",
        host_port=int(host or inside),
        container_port=int(inside),
        protocol=Protocol.PROTOCOL_UDP if protocol == "udp" else Protocol.PROTOCOL_TCP,
    )


def _place(at: yaml.Node | yaml.Mark | None) -> Place:
    mark = at.start_mark if isinstance(at, yaml.Node) else at
    return Place(mark.line + 1, mark.column + 1) if mark else Place(0, 0)
