"""How values are written in a Statefile. Each function raises ValueError with a sentence for people."""

import ipaddress
import os
import re
import shlex

import yaml
from tinyo.v1.container_pb2 import Mount, Port, Protocol

#: Bytes of a Statefile (the contract's limit), and how many aliases it may use.
SIZE_LIMIT, ALIAS_LIMIT = 1 << 20, 100
#: Depth of nesting; a Statefile needs four, and libyaml would go on until its stack ends.
DEPTH_LIMIT = 32
PORT = re.compile(r"(?:(?:([0-9.]+):)?([0-9]{1,5}):)?([0-9]{1,5})(?:/(tcp|udp))?")


def port(text: str) -> Port:
    """A published port: "80", "8080:80", "127.0.0.1:8080:80", each also with "/udp"."""
    if not (match := PORT.fullmatch(text)):
        raise ValueError(
            f'{text!r} is no port: write 8080, "8080:80" (host:container) or "127.0.0.1:8080:80", '
            "with /udp behind it if it is not TCP"
        )
    address, host, inside, protocol = match.groups()
    if address:
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            raise ValueError(f"{address!r} is no IPv4 address") from None
    for number in (host or inside, inside):
        if not 1 <= int(number) <= 65535:
            raise ValueError(f"{number} is no port: ports go from 1 to 65535")
    return Port(
        host_ip=address or "",
        host_port=int(host or inside),
        container_port=int(inside),
        protocol=Protocol.PROTOCOL_UDP if protocol == "udp" else Protocol.PROTOCOL_TCP,
    )


def mount(text: str) -> Mount:
    """A mount: "source:target" or "source:target:ro"."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not (source and target) or mode not in ("", "ro"):
        raise ValueError(f"{text!r} is no mount: write source:target or source:target:ro")
    return Mount(source=source, target=target, read_only=mode == "ro")


def path(text: str) -> str:
    """A path, which cannot be empty."""
    if not text:
        raise ValueError("a path is expected here")
    return text


def truth(text: str) -> bool:
    """true or false."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def variable(text: str) -> tuple[str, str]:
    """An environment variable, "NAME=value"."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r} is no environment variable: write NAME=value")
    return name, value


def words(text: str) -> list[str]:
    """A command in one text, split as a shell would split it."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"the command cannot be split into words: {str(error).lower()}") from None


def name(filename: str) -> str:
    """The name that a file gives its container: its stem, made to fit; "" when nothing fits."""
    stem = os.path.splitext(filename)[0].lower()
    return re.sub(r"[^a-z0-9_.-]+", "-", stem).strip("_.-")[:63]


def read(path: str) -> str:
    """The text of a file, "-" for standard input. OSError, and ValueError when it cannot be a Statefile."""
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        content = file.read(SIZE_LIMIT + 1)
    if len(content) > SIZE_LIMIT:
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
