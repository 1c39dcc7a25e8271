"""Mistakes as people like to read them: where, what, and what was probably meant.

web.yml:3:1: unknown key 'prot': did you mean 'port'?
  3 | prot: 8080
    | ^
"""

from collections.abc import Collection

from tinyo_ctl.render import safe

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
