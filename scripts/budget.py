"""Counts code lines: no blanks, no comments, no docstrings. By module, and of the core.

The core is what one container on localhost needs. A module counts as core unless `[tool.tinyo]` in
pyproject.toml lists it as standing beside, so that nothing new is left out by accident.
"""

import ast
import fnmatch
import io
import sys
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What the core should be, and what it must not exceed; what the spawner's part must not exceed.
GOAL, LIMIT, SPAWNER_LIMIT = 1000, 1200, 400

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """How many lines of a module are code."""
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def modules() -> dict[str, Path]:
    """Every module of the services, by its path below `src`."""
    return {
        str(path.relative_to(source)): path
        for source in sorted(ROOT.glob("services/*/src"))
        for path in sorted(source.rglob("*.py"))
    }


def core() -> dict[str, Path]:
    """The modules of the core. ValueError when pyproject.toml lists one that does not exist."""
    found = modules()
    beside = set[str]()
    for pattern in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["tinyo"]["beside"]:
        matches = fnmatch.filter(found, pattern)
        if not matches:
            raise ValueError(f"pyproject.toml: [tool.tinyo] beside: no module matches {pattern!r}")
        beside.update(matches)
    return {name: path for name, path in found.items() if name not in beside}


def main() -> None:
    """Prints the table; fails when the core is too large."""
    lines = {name: code_lines(path.read_text()) for name, path in modules().items()}
    lines = {name: count for name, count in lines.items() if count}
    in_core = core()
    spawner = sum(count for name, count in lines.items() if name in in_core and "/spawner/" in name)
    total = sum(count for name, count in lines.items() if name in in_core)
    for title, chosen in (("core", True), ("beside it", False)):
        names = [name for name in lines if (name in in_core) is chosen]
        print(f"{title}: {sum(lines[name] for name in names):,} lines in {len(names)} modules")
        for name in names:
            print(f"  {lines[name]:5}  {name}")
    print(
        f"core {total:,} (goal {GOAL:,}, limit {LIMIT:,}), of it the spawner {spawner} (limit {SPAWNER_LIMIT})"
    )
    if total > LIMIT or spawner > SPAWNER_LIMIT:
        sys.exit("over the limit: move what the first example does not need into modules beside the core")


if __name__ == "__main__":
    main()
