"""Imports go one way: jobs -> pipelines -> spair_core -> kernels, and only pipelines meet the outside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["kernels", "spair_core", "pipelines", "jobs", "infra"]
# A tool that nothing imports: it also times the network that the operators serve.
EXCEPTIONS = {"kernels/contests.py": {"spair_core"}}
OUTSIDE = {"ray", "mlflow", "fsspec", "s3fs", "boto3", "botocore"}
SOURCES = [(layer, path) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imported(source: str, module: str) -> set[str]:
    """The top-level names that a module's source imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(module if node.level else (node.module or "").partition(".")[0])
    return names


def forbidden(layer: str) -> set[str]:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    return above | OUTSIDE if layer in ("kernels", "spair_core") else above


@pytest.mark.parametrize(("layer", "path"), SOURCES, ids=[str(path.relative_to(ROOT)) for _, path in SOURCES])
def test_a_module_imports_only_from_below(layer: str, path: Path) -> None:
    allowed = EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), set())
    assert not imported(path.read_text(), layer) & forbidden(layer) - allowed


def test_an_import_upwards_would_be_seen() -> None:
    source = "def f():\n    import ray.data\n    from pipelines.storage import join\n    from . import index"
    assert imported(source, "kernels") == {"ray", "pipelines", "kernels"}
    assert imported(source, "kernels") & forbidden("kernels") == {"ray", "pipelines"}
