"""The house holds: imports run one way, files stay short, the wheel lists every package."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sri_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400  # lines; around 150 is the habit

# A module may import from lower floors only, and from its own package.
FLOORS = {
    "errors": 0,
    "workspace": 1,
    "allocator": 0,
    "progress": 0,
    "signals": 0,
    "precision": 1,
    "figures": 1,
    "model": 1,
    "recipe": 2,
    "checkpoints": 3,
    "sampling": 4,
    "walking": 4,
    "data": 4,
    "metrics": 5,
    "labeling": 5,
    "training": 5,
    "looking": 6,
    "bench": 6,
    "commands": 7,
    "cli": 8,
    "__main__": 9,
}
# `figures` know only arrays, and the model knows no recipe, file or command line.
ONLY = {
    "figures": {"figures", "errors"},
    "model": {"model", "errors"},
    "workspace": {"errors"},
    "allocator": set(),
    "progress": set(),
    "signals": set(),
    "precision": {"errors"},
    "cli": {"errors", "workspace"},  # commands come in by name, when called
}
NOT_IN_MODEL = {"click", "rich", "yaml", "pydantic", "h5py"}


def top(path: Path) -> str:
    """The room that a file belongs to: `recipe` for sri_cli/recipe/load.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> list[str]:
    """Every dotted module that a file imports, at its top or inside its functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def rooms(path: Path) -> set[str]:
    """The rooms of this house that a file imports from."""
    ours = [name.split(".") for name in imports(path) if name.startswith("sri_cli")]
    return {parts[1] for parts in ours if len(parts) > 1 and parts[1] != "__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    here = top(path)
    if here == "__init__":
        assert not rooms(path)
        return
    assert here in FLOORS, f"{here} has no floor: place it in FLOORS and in CONTRIBUTING.md"
    upward = {room for room in rooms(path) if room != here and FLOORS[room] >= FLOORS[here]}
    assert not upward, f"{path.name} imports from its own floor or above: {upward}"
    if here in ONLY:
        assert rooms(path) <= ONLY[here]


@pytest.mark.parametrize("path", [path for path in FILES if top(path) == "model"], ids=str)
def test_model_knows_no_files_and_no_command_line(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & NOT_IN_MODEL


def test_files_stay_short() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in FILES + tests}
    assert {str(path): count for path, count in lines.items() if count > LONGEST} == {}


def test_wheel_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")}
    found = {".".join(folder.parts) for folder in folders} | {"sri_cli.recipes"}
    assert set(listed) == found
