"""`make picture`: runs the demonstration and draws what it printed, as docs/demo.svg."""

import io
import re
import subprocess
import sys

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 110


def main() -> None:
    """Commands are green and titles bold; the rest is as it was printed."""
    printed = subprocess.run(
        [sys.executable, "-m", "scripts.demo"], check=True, capture_output=True, text=True
    ).stdout
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    previous = ""
    for line in printed.strip().splitlines():
        is_title = not previous and re.fullmatch(r"[A-Z][^$]*", line)
        console.print(
            Text(line, "bold" if is_title else "green" if line.startswith("$ ") else ""), soft_wrap=False
        )
        previous = line
    picture = console.export_svg(title="make demo", theme=MONOKAI)
    # Fonts that it would fetch from elsewhere are not loaded where pictures are shown.
    picture = re.sub(r"\s*@font-face \{[^}]*\}", "", picture)
    with open("docs/demo.svg", "w") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
