"""Counting code lines, and knowing the core."""

from pathlib import Path

import pytest

from scripts import budget

SAMPLE = '''"""A docstring
of two lines."""

import os  # counts: 1


class A:  # 2
    """One more."""

    #: a comment
    text = """two lines
of data"""  # 3 and 4

    def f(self) -> str:  # 5
        """Of a function."""
        return os.path.join(  # 6
            # not this
            "a",  # 7

            "b",  # 8
        )  # 9
'''


def test_blanks_comments_and_docstrings_do_not_count() -> None:
    assert budget.code_lines(SAMPLE) == 9


def test_an_expression_that_is_no_docstring_counts_wherever_it_stands() -> None:
    assert budget.code_lines("x = 1; y = 2\n") == 1
    assert budget.code_lines("print('''a\n\nb''')\n") == 3


def tree(root: Path, beside: str) -> None:
    """A repository with two modules."""
    package = root / "services/runtime/src/tinyo_runtime/spawner"
    package.mkdir(parents=True)
    (package / "enter.py").write_text("x = 1\n" * 5)
    (package.parent / "execs.py").write_text("x = 1\n" * 20)
    (root / "pyproject.toml").write_text(f"[tool.tinyo]\nbeside = [{beside}]\n")


def test_every_module_is_core_unless_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "ROOT", tmp_path)
    tree(tmp_path, '"tinyo_runtime/execs.py"')
    assert list(budget.core()) == ["tinyo_runtime/spawner/enter.py"]


def test_a_listed_module_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "ROOT", tmp_path)
    tree(tmp_path, '"tinyo_runtime/gone.py"')
    with pytest.raises(ValueError, match="no module matches"):
        budget.core()


def test_a_core_or_spawner_over_its_limit_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "ROOT", tmp_path)
    tree(tmp_path, '"tinyo_runtime/execs.py"')
    monkeypatch.setattr(budget, "LIMIT", 5)
    monkeypatch.setattr(budget, "SPAWNER_LIMIT", 5)
    budget.main()
    monkeypatch.setattr(budget, "SPAWNER_LIMIT", 4)
    with pytest.raises(SystemExit):
        budget.main()
    monkeypatch.setattr(budget, "SPAWNER_LIMIT", 5)
    (tmp_path / "pyproject.toml").write_text("[tool.tinyo]\nbeside = []\n")
    with pytest.raises(SystemExit):
        budget.main()
