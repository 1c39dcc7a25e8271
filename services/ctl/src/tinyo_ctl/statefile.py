"""Statefiles: what people write, and the ContainerSpec that it stands for.

    statefile = load("examples/basic/alpine-1.yml")
    statefile.spec.image            # "alpine:latest"
    statefile.place("containers[0].ports[0].host_port")    # Place(line=3, column=7)

Checked here is only what has to be understood to build the spec; all the rest is the node's to check, for
every client alike, and its answers find their line through `place`. Values are taken as they are written:
YAML's opinions (`22:22` is 1342, `no` is false) do not apply to them.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import yaml
from tinyo.v1.container_pb2 import ContainerSpec, Mount, Port

from tinyo_ctl import Failure, notation
from tinyo_ctl.diagnose import describe, unknown

T = TypeVar("T")
#: Keys whose value is one text, and the field of the spec that it becomes.
TEXTS = {"container": "image", "name": "name", "workdir": "workdir", "user": "user"}
KEYS = (*TEXTS, "command", "env", "port", "mounts")
MOUNT_KEYS = ("source", "target", "read_only", "create")


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
    #: The text begins with file, line and column, where editors look for them.
    prefix = ""

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
            field = field[:-1]
        return self.places.get(field, Place(0, 0))


def load(path: str) -> Statefile:
    """Reads a Statefile, "-" from standard input. StatefileError when anything is wrong with it."""
    text = ""
    origin = "-" if path == "-" else os.path.realpath(path)
    reader = _Reader(os.getcwd() if path == "-" else os.path.dirname(origin))
    try:
        text = notation.read(path)
        notation.limit(text)
        reader.document(yaml.compose(text, Loader=yaml.CSafeLoader), os.path.basename(path))
    except yaml.MarkedYAMLError as error:
        reader.mistake(error.problem_mark, ", ".join(filter(None, (error.context, error.problem))))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reader.mistake(None, error.strerror or "" if isinstance(error, OSError) else str(error))
    if reader.mistakes:
        raise StatefileError(path, text, reader.mistakes)
    return Statefile(path, origin, text, reader.spec, reader.places)


class _Reader:
    """Turns the nodes of one document into a spec; collects mistakes instead of ending at the first."""

    def __init__(self, folder: str) -> None:
        self.folder, self.spec = folder, ContainerSpec()
        self.mistakes: list[Mistake] = []
        self.places: dict[str, Place] = {}

    def document(self, node: yaml.Node | None, filename: str) -> None:
        """The whole: one mapping. A key without a value is as if it were not there."""
        values = self.mapping(node, KEYS)
        values = {key: value for key, value in values.items() if not _is_empty(value)}
        if isinstance(node, yaml.MappingNode) and "container" not in values:
            self.mistake(
                node, "'container' is missing: it names the image, as in container: \"alpine:latest\""
            )
        for key, value in values.items():
            if key in TEXTS:
                setattr(self.spec, TEXTS[key], self.value(value, TEXTS[key], str, ""))
            else:
                getattr(self, key)(value)
        self.spec.name = self.spec.name or notation.name(filename)
        if not self.spec.name:
            self.mistake(node, "'name' is missing, and the file's name cannot stand for it")

    def command(self, node: yaml.Node) -> None:
        """Words, or one text that is split as a shell would."""
        words: list[str] = []
        if isinstance(node, yaml.SequenceNode):
            words = [self.value(item, path, str, "") for item, path in self.items(node, "command")]
        else:
            words = self.value(node, "command", notation.words, words)
        self.spec.command.extend(words)

    def env(self, node: yaml.Node) -> None:
        """NAME: value, or a list of NAME=value."""
        self.places["env"] = _place(node)
        if isinstance(node, yaml.MappingNode):
            for name, value in self.mapping(node).items():
                self.spec.env[name] = self.value(value, f"env[{name}]", str, "")
            return
        for item, path in self.items(node, "env"):
            name, text = self.value(item, path, notation.variable, ("", ""))
            if name in self.spec.env:
                self.mistake(item, f"{name!r} is there twice")
            elif name:
                self.spec.env[name] = text

    def port(self, node: yaml.Node) -> None:
        """One port, or several."""
        for item, path in self.items(node, "ports"):
            self.spec.ports.append(self.value(item, path, notation.port, Port()))

    def mounts(self, node: yaml.Node) -> None:
        """Mounts, each as a mapping or in short."""
        for item, path in self.items(node, "mounts"):
            if isinstance(item, yaml.MappingNode):
                mount = self.mount(item, path)
            else:
                mount = self.value(item, path, notation.mount, Mount())
            # Without following links, so that the same file always means the same spec.
            mount.source = os.path.normpath(os.path.join(self.folder, os.path.expanduser(mount.source)))
            self.spec.mounts.append(mount)

    def mount(self, node: yaml.Node, path: str) -> Mount:
        """One mount, written as a mapping."""
        values, mount = self.mapping(node, MOUNT_KEYS), Mount()
        for key, value in values.items():
            parse = notation.path if key in ("source", "target") else notation.truth
            setattr(mount, key, self.value(value, f"{path}.{key}", parse, getattr(mount, key)))
        for key in ("source", "target"):
            if key not in values:
                self.mistake(node, f"{key!r} of the mount is missing")
        return mount

    def mapping(self, node: yaml.Node | None, allowed: tuple[str, ...] = ()) -> dict[str, yaml.Node]:
        """Values by key; what is no mapping, and keys that are not allowed or there twice, are mistakes."""
        values: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            self.mistake(node, "lines with 'key: value' are expected here")
            return values
        for key, value in node.value:
            name = self.value(key, "", str, None)
            if name is None:
                continue
            if name in values:
                self.mistake(key, f"{name!r} is there twice")
            elif allowed and name not in allowed:
                self.mistake(key, unknown("key", name, allowed))
            else:
                values[name] = value
        return values

    def items(self, node: yaml.Node, path: str) -> Iterator[tuple[yaml.Node, str]]:
        """Each item of a list with its path; something that is no list is a list of one."""
        self.places[path] = _place(node)
        for index, item in enumerate(node.value if isinstance(node, yaml.SequenceNode) else [node]):
            self.places[f"{path}[{index}]"] = _place(item)
            yield item, f"{path}[{index}]"

    def value(self, node: yaml.Node, path: str, parse: Callable[[str], T], otherwise: T) -> T:
        """What a value, taken as it is written, stands for; `path` is that of its field, when it has one."""
        if path:
            self.places[path] = _place(node)
        try:
            if isinstance(node, yaml.ScalarNode):
                return parse(node.value)
            self.mistake(node, "one value is expected here")
        except ValueError as error:
            self.mistake(node, str(error))
        return otherwise

    def mistake(self, at: yaml.Node | yaml.Mark | None, message: str) -> None:
        """Notes what is wrong at a node or a mark."""
        self.mistakes.append(Mistake(_place(at), message))


def _place(at: yaml.Node | yaml.Mark | None) -> Place:
    mark = at.start_mark if isinstance(at, yaml.Node) else at
    return Place(mark.line + 1, mark.column + 1) if mark else Place(0, 0)


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null") and not node.value
