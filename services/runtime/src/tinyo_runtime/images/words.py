"""Words of an instruction of a Dockerfile: quotes, backslashes and variables as docker reads them."""

import re
from collections.abc import Mapping

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})", re.ASCII)
#: What a backslash protects between double quotes.
_PROTECTED = '"$\\'


def words(text: str, env: Mapping[str, str]) -> list[str]:
    """The words, without quotes and with the values of variables. Raises ValueError for a quote without an end."""
    found: list[str] = []
    word: list[str] | None = None
    quote, at = "", 0
    while at < len(text):
        character = text[at]
        at += 1
        if character.isspace() and not quote:
            if word is not None:
                found.append("".join(word))
            word = None
            continue
        word = [] if word is None else word
        if character == quote:
            quote = ""
        elif character in "'\"" and not quote:
            quote = character
        elif quote == "'":
            word.append(character)
        elif character == "\\" and at < len(text) and (not quote or text[at] in _PROTECTED):
            word.append(text[at])
            at += 1
        elif character == "$" and (match := _VARIABLE.match(text, at - 1)):
            word.append(_value(match, env))
            at = match.end()
        else:
            word.append(character)
    if quote:
        raise ValueError(f"a {quote} has no end")
    return found if word is None else [*found, "".join(word)]


def _value(match: re.Match[str], env: Mapping[str, str]) -> str:
    value = env.get(match[1] or match[2], "")
    if match[3] == "-":
        return value or match[4]
    return match[4] if match[3] and value else "" if match[3] else value
