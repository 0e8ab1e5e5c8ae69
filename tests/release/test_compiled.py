"""What a module that is compiled must not do, since mypyc makes something else of it than Python does."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOKS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
COMPILED = [path.removeprefix("/") for path in HOOKS["mypyc"]["include"]]


@pytest.mark.parametrize("path", COMPILED)
def test_a_function_calls_errors_of_different_types_by_different_names(path: str) -> None:
    """The name has the type of the first, and where that is compiled an error of another type is a TypeError."""
    for function in ast.walk(ast.parse((ROOT / path).read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        caught: dict[str, str] = {}
        for handler in ast.walk(function):
            if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type is not None:
                kind = ast.unparse(handler.type)
                assert caught.setdefault(handler.name, kind) == kind, f"{function.name}: {handler.name}"
