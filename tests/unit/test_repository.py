"""What must be true of the repository itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF = Path(sys.executable).parent / "buf"
COMPONENTS = {"ctl": "tinyo_ctl", "node": "tinyo_node", "runtime": "tinyo_runtime"}


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def imports(path: Path) -> set[str]:
    """Top-level names of everything that a module imports, wherever in it the import stands."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("component", COMPONENTS)
def test_components_meet_at_the_contracts_alone(component: str) -> None:
    own = COMPONENTS[component]
    sources = list((ROOT / "services" / component / "src" / own).rglob("*.py"))
    assert sources
    for path in sources:
        others = imports(path) & set(COMPONENTS.values()) - {own}
        assert not others, f"{path} imports {others}"


def test_the_spawner_needs_the_standard_library_alone() -> None:
    for path in (ROOT / "services/runtime/src/tinyo_runtime/spawner").glob("*.py"):
        foreign = imports(path) - sys.stdlib_module_names - {"tinyo_runtime"}
        assert not foreign, f"{path} imports {foreign}"


def test_contracts_are_in_order_and_every_field_has_a_comment() -> None:
    run(BUF, "lint", "protos")


def test_contracts_still_understand_the_last_release() -> None:
    tags = run("git", "tag", "--list", "v*", "--sort=-version:refname").split()
    if not tags:
        pytest.skip("nothing was released yet: there is no tag v*")
    run(BUF, "breaking", "protos", "--against", f".git#tag={tags[0]},subdir=protos")


def test_nothing_generated_is_in_git() -> None:
    generated = re.compile(
        r"_pb2|\.pyc$|\.egg-info|(^|/)(build|dist|__pycache__|\.venv[^/]*)/|\.coverage|uv\.lock$"
    )
    assert not [path for path in run("git", "ls-files").split() if generated.search(path)]


def test_every_command_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for path in documents:
        missing = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", path.read_text(), re.MULTILINE)) - targets
        assert not missing, f"{path} speaks of make {missing}"


def test_help_lists_every_target_that_is_meant_for_people() -> None:
    targets = " ".join(re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    listed = re.findall(r"^  make ([a-z0-9-]+)", run("make", "help"), re.MULTILINE)
    assert sorted([*listed, "run-packages"]) == sorted(targets.split())


def test_links_of_the_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path} links to {target}"
