"""Lines for people, which a terminal shows and never obeys."""


def safe(text: str) -> str:
    """Text on one line, harmless: control characters and bidi marks as in repr()."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def say(*parts: str) -> None:
    """A line of its own, at once, and whole, whoever else writes one."""
    print("  ".join(map(safe, parts)) + "\n", end="", flush=True)
