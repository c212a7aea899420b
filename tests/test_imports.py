"""The structure of the package: imports point down, no cycles, files stay readable."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sri_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 600  # lines

# A module may import from its own package and from packages of a lower floor. Each row is a floor,
# the lowest first; packages on the same floor do not import each other.
FLOORS = [
    {"errors", "signals", "console"},
    {"atomic", "strict_json", "cores", "device", "rng"},
    {"models"},
    {"config"},
    {"checkpoint"},
    {"hub"},
    {"run"},
    {"data"},
    {"generation"},
    {"training", "metrics"},
    {"runs", "labeling"},
    {"plotting"},
    {"studies", "benchmarks"},
    {"doctor", "demo", "export", "scenes"},
    {"api"},
    {"cli"},
    {"__main__"},
]
NOT_IN_MODELS = {"click", "rich", "yaml", "pydantic", "h5py"}


def module_name(path: Path) -> str:
    """`data.loader` for sri_cli/data/loader.py; "" for sri_cli/__init__.py."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix("__init__").removesuffix(".")


@cache
def imports(path: Path) -> set[str]:
    """Every dotted module that a file imports when it runs, at its top or inside its functions."""

    class Visitor(ast.NodeVisitor):
        def __init__(self) -> None:
            self.names: set[str] = set()

        def visit_If(self, node: ast.If) -> None:
            if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            self.names |= {alias.name for alias in node.names}

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            assert node.level == 0, f"{path}: relative import"
            self.names |= {f"{node.module}.{alias.name}" for alias in node.names}

    visitor = Visitor()
    visitor.visit(ast.parse(path.read_text("utf-8")))
    return visitor.names


def internal_imports() -> dict[str, set[str]]:
    """The import graph between the files of the package."""
    modules = {module_name(path) for path in FILES} - {""}
    graph = {}
    for path in FILES:
        ours = {name.removeprefix("sri_cli.") for name in imports(path) if "sri_cli." in name}
        targets = {name if name in modules else name.rpartition(".")[0] for name in ours}
        graph[module_name(path)] = (targets & modules) - {module_name(path)}
    return graph


def test_no_cycle_between_files() -> None:
    try:
        TopologicalSorter(internal_imports()).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_imports_point_down() -> None:
    floor = {package: height for height, row in enumerate(FLOORS) for package in row}
    wrong = []
    for module, targets in internal_imports().items():
        here = module.partition(".")[0]
        if not here:
            assert not targets
            continue
        for package in {target.partition(".")[0] for target in targets} - {here}:
            if floor[package] >= floor[here]:
                wrong.append(f"{module} imports {package}")
    assert not wrong


def test_models_know_no_files_and_no_command_line() -> None:
    names = set().union(*(imports(p) for p in FILES if module_name(p).startswith("models.")))
    assert not {name.partition(".")[0] for name in names} & NOT_IN_MODELS


def test_files_stay_readable() -> None:
    files = FILES + sorted((ROOT / "tests").rglob("*.py"))
    lines = {str(path): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > LONGEST} == {}


def test_the_wheel_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")}
    assert set(listed) == {".".join(folder.parts) for folder in folders} | {"sri_cli.recipes"}
