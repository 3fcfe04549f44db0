"""The parts of the functions' package import only parts that are below them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from environment import FUNCTIONS

PACKAGE = "airflow_serverless"
LAYERS = (
    "imports",
    "patched",
    "regular",
    "state",
    "config",
    "db",
    "airflow_config",
    "xcom",
    "dags",
    "execution_api",
    "task_log",
    "executor",
    "quarantine",
    "commands",
    "scheduler",
    "worker",
    "ui",
    "functions",
    "app",
    "deploy",
    "serve_ui",
)
"""Modules and packages from the bottom to the top: none imports one to its right, not even in a function."""


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, apart from those for annotations only."""
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            yield node.module
        nodes.extend(ast.iter_child_nodes(node))


def layer(module: str) -> str:
    return module.split(".")[1]


def test_modules_import_lower_layers_only() -> None:
    wrong = []
    files = sorted((FUNCTIONS / PACKAGE).rglob("*.py"))
    for path in files:
        own = layer(".".join(path.relative_to(FUNCTIONS).with_suffix("").parts))
        if own == "__init__":
            continue
        assert own in LAYERS, f"{own} has no place among the layers"
        for module in imported(path):
            if LAYERS.index(layer(module)) > LAYERS.index(own):
                wrong.append(f"{path.relative_to(FUNCTIONS)} imports {module}")
    assert len(files) > len(LAYERS)
    assert not wrong, "\n".join(wrong)


def test_module_names_are_unique() -> None:
    """Apart from commands, which are named after what they change."""
    shared = {"__init__", "backend"}
    names: dict[str, list[Path]] = {}
    for path in (FUNCTIONS / PACKAGE).rglob("*.py"):
        if path.parent.name != "commands":
            names.setdefault(path.stem, []).append(path)
    assert not {name: paths for name, paths in names.items() if len(paths) > 1 and name not in shared}
