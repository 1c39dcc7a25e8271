"""What is wrong with a Statefile, all of it at once, and where; and where the fields of its spec stand.

find("web.yml", content)                                  # StatefileError
place(text, "containers[0].ports[0].host_port")           # Place(line=3, column=7)
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import yaml

from tinyo_ctl import keys, notation, shorthand
from tinyo_ctl.diagnose import describe, unknown
from tinyo_ctl.failures import Failure
from tinyo_ctl.keys import ports as published

S = TypeVar("S")
T = TypeVar("T")
#: How many aliases a Statefile may use, and how deep it nests: it needs four, and libyaml would go on until its
#: stack ends.
ALIAS_LIMIT, DEPTH_LIMIT = 100, 32
#: Keys whose value is one text, and the field of the spec that it becomes.
TEXTS = {"container": "image", "name": "name", "workdir": "workdir", "user": "user"}
KEYS = (*TEXTS, "command", "env", "port", "mounts", *keys.KEYS)


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


@contextmanager
def explained(path: str) -> Iterator[None]:
    """StatefileError when a file cannot be read."""
    try:
        yield
    except (OSError, ValueError) as error:
        message = error.strerror or "" if isinstance(error, OSError) else str(error)
        raise StatefileError(path, "", [Mistake(Place(0, 0), message)]) from None


def find(path: str, content: bytes) -> None:
    """StatefileError when anything is wrong with what is in a file, as far as it has to be understood here."""
    text = ""
    reader = Reader(shorthand.folder(path))
    try:
        text = decode(content)
        limit(text)
        reader.document(yaml.compose(text, Loader=yaml.CSafeLoader), os.path.basename(path))
    except yaml.MarkedYAMLError as error:
        reader.mistake(error.problem_mark, ", ".join(filter(None, (error.context, error.problem))))
    except (ValueError, yaml.YAMLError) as error:
        reader.mistake(None, str(error))
    if reader.mistakes:
        raise StatefileError(path, text, reader.mistakes)


def place(text: str, field: str) -> Place:
    """Where in a Statefile a field of the request ("containers[0].mounts[1].source") stands, or what it is part of."""
    reader = Reader()
    reader.document(yaml.compose(text, Loader=yaml.CSafeLoader), "")
    field = field.removeprefix("containers[0].")
    while field and field not in reader.places:
        field = field[:-1]
    return reader.places.get(field, Place(0, 0))


def decode(content: bytes) -> str:
    """The text of a file. ValueError when it cannot be a Statefile."""
    if len(content) > notation.SIZE_LIMIT:
        raise ValueError("the file is larger than 1 MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8") from None
    if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"line {line} has a control character: {found[0]!r}")
    return text


def limit(text: str) -> None:
    """MarkedYAMLError when a text nests too deeply or uses too many aliases to be a Statefile."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEPTH_LIMIT or aliases > ALIAS_LIMIT:
            excess = (
                f"nests more than {DEPTH_LIMIT} deep"
                if depth > DEPTH_LIMIT
                else f"has more than {ALIAS_LIMIT} aliases"
            )
            raise yaml.MarkedYAMLError(problem=f"a Statefile never {excess}", problem_mark=event.start_mark)  # type: ignore[arg-type]


class Reader:
    """Goes through the nodes of one document; collects mistakes instead of ending at the first, and places."""

    def __init__(self, folder: str = "") -> None:
        #: Where relative paths begin; empty: the files that a Statefile names are not looked for.
        self.folder = folder
        self.mistakes: list[Mistake] = []
        #: Where each field of the spec stands: "ports[0]", "mounts[1].source".
        self.places: dict[str, Place] = {}

    def document(self, node: yaml.Node | None, filename: str) -> None:
        """The whole: one mapping. A key without a value is as if it were not there."""
        values = self.mapping(node, KEYS)
        values = {key: value for key, value in values.items() if not _is_empty(value)}
        if isinstance(node, yaml.MappingNode) and "container" not in values:
            self.mistake(
                node, "'container' is missing: it names the image, as in container: \"alpine:latest\""
            )
        name = ""
        for key, value in values.items():
            if key in TEXTS:
                text = self.value(value, TEXTS[key], str, "")
                name = text if key == "name" else name
            elif key in keys.KEYS:
                keys.KEYS[key].kind.find(self, value, keys.KEYS[key].field)
            else:
                getattr(self, key)(value)
        if not (name or notation.name(filename)):
            self.mistake(node, "'name' is missing, and the file's name cannot stand for it")

    def command(self, node: yaml.Node) -> None:
        """Words, or one text that is split as a shell would."""
        if isinstance(node, yaml.SequenceNode):
            for item, path in self.items(node, "command"):
                self.value(item, path, str, "")
        else:
            self.value(node, "command", shorthand.words, None)

    def env(self, node: yaml.Node) -> None:
        """NAME: value, or a list of NAME=value."""
        self.place("env", node)
        if isinstance(node, yaml.MappingNode):
            for name, value in self.mapping(node).items():
                self.value(value, f"env[{name}]", str, "")
            return
        names = set[str]()
        for item, path in self.items(node, "env"):
            name, _ = self.value(item, path, shorthand.variable, ("", ""))
            if name and name in names:
                self.mistake(item, f"{name!r} is there twice")
            names.add(name)

    def port(self, node: yaml.Node) -> None:
        """One port, or several; a range stands for single ones, which all stand in one place."""
        read = 0
        for item, _ in list(self.items(node, "ports")):
            for _ in self.value(item, "", published.parsed, (None,)):
                self.place(f"ports[{read}]", item)
                read += 1

    def mounts(self, node: yaml.Node) -> None:
        """Mounts, each as a mapping or in short."""
        for item, path in self.items(node, "mounts"):
            if isinstance(item, yaml.MappingNode):
                self.mount(item, path)
            else:
                self.value(item, path, shorthand.short_mount, None)

    def mount(self, node: yaml.Node, path: str) -> None:
        """One mount, written as a mapping."""
        values = self.mapping(node, tuple(shorthand.MOUNT))
        for key, value in values.items():
            shorthand.MOUNT[key].kind.find(self, value, f"{path}.{shorthand.MOUNT[key].field}")
        if "source" in values and "volume" in values:
            self.mistake(node, "a mount has a 'source' or a 'volume', and not both")
        for key in ("source", "target"):
            if key not in values and not (key == "source" and "volume" in values):
                self.mistake(node, f"{key!r} of the mount is missing")

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

    def value(self, node: yaml.Node, path: str, parse: Callable[[str], T], otherwise: S) -> T | S:
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

    def place(self, path: str, node: yaml.Node) -> None:
        """Notes where a field stands."""
        self.places[path] = _place(node)

    def mistake(self, at: yaml.Node | yaml.Mark | None, message: str) -> None:
        """Notes what is wrong at a node or a mark."""
        self.mistakes.append(Mistake(_place(at), message))


def _place(at: yaml.Node | yaml.Mark | None) -> Place:
    mark = at.start_mark if isinstance(at, yaml.Node) else at
    return Place(mark.line + 1, mark.column + 1) if mark else Place(0, 0)


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null") and not node.value
