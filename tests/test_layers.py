"""Imports go one way: jobs -> pipelines -> spair_core -> kernels, and only pipelines meet the outside.

Within a layer, rooms import only rooms below them, and of these only what they offer.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["kernels", "spair_core", "pipelines", "jobs", "infra"]
# A tool that nothing imports: it also times the network that the operators serve.
EXCEPTIONS = {"kernels/contests.py": {"spair_core"}}
OUTSIDE = {"ray", "mlflow", "fsspec", "s3fs", "boto3", "botocore"}
SOURCES = [(layer, path) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
PATHS = [path for _, path in SOURCES]
NAMES = [str(path.relative_to(ROOT)) for path in PATHS]
MOST_MODULES = 9
"""Of a room: as many as one sees at once."""

MODELS = ("pipelines.services", "pipelines.services.models")
"""Where models are had by name, and what that stands on."""

ROOMS: dict[str, set[str]] = {
    "pipelines.services": set(),
    "pipelines.services.models": {"pipelines.services"},
    "pipelines.media.packings": set(),
    "pipelines.media.video": set(),
    "pipelines.media": {"pipelines.media.packings", "pipelines.media.video"},
    "pipelines.data": {"pipelines.services", "pipelines.media"},
    "pipelines.training": {*MODELS, "pipelines.data"},
    "pipelines.restoration": {*MODELS, "pipelines.media"},
    "pipelines.restoration.here": {*MODELS, "pipelines.media", "pipelines.restoration"},
    "pipelines.judging": {*MODELS, "pipelines.media", "pipelines.data"},
    "pipelines.reports": {*MODELS, "pipelines.media", "pipelines.data", "pipelines.restoration"},
    "pipelines.benchmark": {*MODELS, "pipelines.media", "pipelines.data", "pipelines.restoration"},
    "spair_core.images.formats": set(),
    "spair_core.images": {"spair_core.images.formats"},
    "spair_core.gpu": set(),
    "spair_core.network": {"spair_core.gpu"},
    "spair_core.footage": {"spair_core.gpu"},
    "spair_core.degradations": {"spair_core.footage"},
    "spair_core.learning": {
        "spair_core.network",
        "spair_core.footage",
        "spair_core.degradations",
        "spair_core.images",
        "spair_core.inference",
    },
    "spair_core.inference": {"spair_core.network", "spair_core.footage", "spair_core.gpu"},
    "spair_core.insight": {"spair_core.network", "spair_core.inference"},
    "kernels.cpu": set(),
    "kernels.cuda": set(),
}
"""Every room, and the rooms of its own layer that it may import."""


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


@pytest.mark.parametrize(("layer", "path"), SOURCES, ids=NAMES)
def test_a_module_imports_only_from_below(layer: str, path: Path) -> None:
    allowed = EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), set())
    assert not imported(path.read_text(), layer) & forbidden(layer) - allowed


def test_an_import_upwards_would_be_seen() -> None:
    source = "def f():\n    import ray.data\n    import pipelines.services\n    from . import index"
    assert imported(source, "kernels") == {"ray", "pipelines", "kernels"}
    assert imported(source, "kernels") & forbidden("kernels") == {"ray", "pipelines"}


SLOW_TO_IMPORT = {"mlflow", "sqlalchemy", "boto3"}


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_what_takes_seconds_to_import_waits_until_it_is_used(path: Path) -> None:
    """Every job and every Ray worker would pay for it; `registered_model` is only MLflow's to load."""
    if path.name == "registered_model.py":
        return
    at_once = [
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not imported("\n".join(map(ast.unparse, at_once)), "") & SLOW_TO_IMPORT


WITHOUT_TORCH = (
    "pipelines.restoration.pieces",
    "pipelines.restoration.stream",
    "pipelines.services.models",
    "jobs.restore_bulk",
    "jobs.nightly_derain",
    "jobs.evaluate",
    "jobs.compare",
    "jobs.promote",
    "jobs.ablate",
    "jobs.train_footage",
    "jobs.train_joint",
    "pipelines.data.crop_stream",
)
"""What reads and writes files, what tells of flags and errors, what reads for a training, and all that the
driver of a restoration or an evaluation does before and beside its actors: torch is two seconds of a core."""


@pytest.mark.long
def test_what_needs_no_torch_starts_without_it() -> None:
    check = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, timeout=240).returncode == 0


def own_imports(source: str) -> Iterator[tuple[str, str]]:
    """(module or package, name) of every import of the project's own, those for type checkers included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LAYERS:
            yield from ((node.module or "", alias.name) for alias in node.names)


def room_of(module: str) -> str:
    """The room that a module (or a package) is in; that of a layer itself is the layer."""
    inside = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(inside, key=len) if inside else module.partition(".")[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_room_is_entered_by_its_door(path: Path) -> None:
    """From outside, only what a room's `__all__` names; and only rooms that this one may know."""
    here = room_of(module_of(path))
    for module, name in own_imports(path.read_text()):
        there = room_of(module if name not in rooms_within(module) else f"{module}.{name}")
        if there == here or there not in ROOMS:
            continue
        if here in ROOMS and here.partition(".")[0] == there.partition(".")[0]:
            assert there in ROOMS[here], f"{here} may not import {module}"
        if f"{module}.{name}" != there:
            entered = module.removeprefix(there).strip(".").partition(".")[0] or name
            assert entered in offered(there), f"{there} does not offer {entered}"


def rooms_within(package: str) -> set[str]:
    return {room.rpartition(".")[2] for room in ROOMS if room.rpartition(".")[0] == package}


def offered(room: str) -> set[str]:
    return set(importlib.import_module(room).__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_what_it_offers(room: str) -> None:
    door = importlib.import_module(room)
    assert 1 <= len((door.__doc__ or "").strip().splitlines()) <= 5
    for name in door.__all__:
        if not hasattr(door, name):
            importlib.import_module(f"{room}.{name}")


@pytest.mark.parametrize("layer", ["kernels", "spair_core", "pipelines"])
def test_every_folder_is_a_room_of_few_modules(layer: str) -> None:
    folders = {path.parent for of_layer, path in SOURCES if of_layer == layer}
    assert {module_of(folder / "__init__.py") for folder in folders} == {
        layer,
        *(room for room in ROOMS if room.startswith(f"{layer}.")),
    }
    for folder in folders:
        modules = {module_of(path) for path in folder.glob("*.py") if path.name != "__init__.py"}
        assert len(modules - entered(folder)) <= MOST_MODULES, folder


def entered(folder: Path) -> set[str]:
    """Modules that the folder's catalogue takes an entry from: these are alike, and may be any number."""
    found = (own for path in folder.glob("catalogue.py") for own in own_imports(path.read_text()))
    return {module for module, name in found if name.isupper()}


def test_no_two_modules_import_one_another() -> None:
    modules = {module_of(path) for path in PATHS}
    graph = {
        module_of(path): {
            target
            for module, name in own_imports(path.read_text())
            if (target := f"{module}.{name}" if f"{module}.{name}" in modules else module) in modules
        }
        # A package's own import of its modules is how it offers them.
        for path in PATHS
        if path.name != "__init__.py"
    }
    tuple(TopologicalSorter(graph).static_order())
