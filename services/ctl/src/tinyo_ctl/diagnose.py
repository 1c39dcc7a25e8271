"""Mistakes as people like to read them: where, what, and what was probably meant.

web.yml:3:1: unknown key 'prot': did you mean 'port'?
  3 | prot: 8080
    | ^
"""

from collections.abc import Collection

from tinyo_ctl.tell import safe

#: Characters of a source line that are shown at most.
WIDTH = 100


def describe(path: str, text: str, place: tuple[int, int], message: str) -> str:
    """A mistake with the line that it stands in; `place` is (line, column), line 0 the file as a whole."""
    line, column = place
    lines = text.splitlines()
    if not 0 < line <= len(lines):
        where = f":{line}:{column}" if line else ""
        return f"{safe(path)}{where}: {safe(message)}"
    begin = max(0, column - 1 - WIDTH // 2)
    source = lines[line - 1].replace("\t", " ")[begin : begin + WIDTH]
    caret = " " * len(safe(source[: column - 1 - begin])) + "^"
    gutter = " " * len(str(line))
    return f"{safe(path)}:{line}:{column}: {safe(message)}\n  {line} | {safe(source)}\n  {gutter} | {caret}"


def unknown(what: str, word: str, known: Collection[str]) -> str:
    """A sentence about a word that is not known, with the nearest one, or all that there are."""
    # Only when somebody mistook something.
    import difflib

    nearest = difflib.get_close_matches(word, known, 1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are: {', '.join(known)}"
    return f"unknown {what} {word!r}: {hint}"


def no_port(text: str) -> ValueError:
    """What is no port at all."""
    return ValueError(
        f'{text!r} is no port: write 8080, "8080:80" (host:container) or "127.0.0.1:8080:80", '
        "with /udp behind it if it is not TCP; 8000-8010 is a range"
    )


def check_port(address: str | None, *numbers: str) -> None:
    """ValueError when what looks like a port has a number or an address that there cannot be."""
    # Only for Statefiles; the import takes a while.
    import ipaddress

    if address:
        six = address.startswith("[")
        try:
            (ipaddress.IPv6Address if six else ipaddress.IPv4Address)(address.strip("[]"))
        except ValueError:
            raise ValueError(f"{address!r} is no IPv{6 if six else 4} address") from None
    for number in numbers:
        if not 1 <= int(number) <= 65535:
            raise ValueError(f"{number} is no port: ports go from 1 to 65535")
