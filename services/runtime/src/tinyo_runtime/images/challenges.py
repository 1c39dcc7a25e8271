"""What a registry wants to see before it answers: the header WWW-Authenticate (RFC 9110, section 11.6.1)."""

import re

#: A parameter of a scheme, its value quoted or not, or the name of a scheme. It never looks back, nor twice at a word:
#: a registry's header may be long.
_PART = re.compile(
    r'(?<![\w-])([\w-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]*+))|([A-Za-z][\w-]*+)',
)


def parse(header: str) -> dict[str, dict[str, str]]:
    """The parameters of each scheme by its name, in lower case. Whatever is no challenge is passed over."""
    found: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for key, quoted, plain, scheme in _PART.findall(header):
        if scheme:
            fields = found.setdefault(scheme.lower(), {})
        else:
            fields.setdefault(key.lower(), re.sub(r"\\(.)", r"\1", quoted) or plain)
    return found
