"""The manifests as `kubectl` sees them, the schemas of their kinds, and the parsers of their commands."""

from __future__ import annotations

import copy
import gzip
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema
import yaml

from jobs import entry

PROJECT = Path(__file__).resolve().parents[2]
INFRA = PROJECT / "infra"
SCHEMAS = Path(__file__).with_name("schemas")
FOLDERS = sorted(path.parent for path in INFRA.rglob("kustomization.yaml"))
Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize FOLDER` gives, of the few features that are used here."""
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(wanted) - {"apiVersion", "kind", "resources", "patches"}
    assert not unknown, f"{folder}: {unknown}"
    found: list[Manifest] = []
    for name in wanted["resources"]:
        path = folder / name
        found += build(path) if path.is_dir() else copy.deepcopy(_documents(path))
    for change in wanted.get("patches", ()):
        for manifest in found:
            if manifest["kind"] == change["target"]["kind"]:
                for operation in yaml.safe_load(change["patch"]):
                    _patched(manifest, **operation)
    return found


@cache
def _documents(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(path.read_text()))


def _patched(manifest: Manifest, op: str, path: str, value: Any) -> None:
    *way, last = path.strip("/").split("/")
    place: Any = manifest
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    assert (last in place) == (op == "replace"), f"{op} {path}"
    place[last] = value


def built() -> Iterator[tuple[str, Manifest]]:
    """Every manifest, with the name of its folder."""
    for folder in FOLDERS:
        for manifest in build(folder):
            yield str(folder.relative_to(INFRA)), manifest


def of_kind(kind: str) -> list[tuple[str, Manifest]]:
    """Those of a kind, but what is only there to be patched."""
    return [(name, found) for name, found in built() if found["kind"] == kind and not name.endswith("base")]


def mappings(manifest: Any) -> Iterator[Manifest]:
    """A manifest and all mappings in it."""
    if isinstance(manifest, dict):
        yield manifest
        manifest = list(manifest.values())
    for value in manifest if isinstance(manifest, list) else ():
        yield from mappings(value)


def pods(manifest: Any) -> Iterator[Manifest]:
    """The specifications of all pods that a manifest makes."""
    return (one for one in mappings(manifest) if "containers" in one)


def check(manifest: Manifest) -> None:
    """Raises jsonschema.ValidationError where the published schema of its kind does not allow a manifest."""
    version, kind = manifest["apiVersion"], manifest["kind"]
    if (version, kind) == ("ray.io/v1", "RayJob"):
        schema = _strict(_read("ray.io-v1-rayjob.json.gz"))
    else:
        definitions = _read("kubernetes-1.37.json.gz")["definitions"]
        group, _, number = version.rpartition("/")
        (name,) = (
            name
            for name, one in definitions.items()
            if {"group": group, "version": number, "kind": kind}
            in one.get("x-kubernetes-group-version-kind", ())
        )
        schema = {"$ref": f"#/definitions/{name}", "definitions": definitions}
    jsonschema.Draft7Validator(schema).validate(manifest)


@cache
def _read(name: str) -> Any:
    return json.loads(gzip.decompress((SCHEMAS / name).read_bytes()))


def _strict(schema: Any) -> Any:
    """The same, in which a field without a schema is an error, as `kubectl` has it."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        open_to_all = schema.get("x-kubernetes-preserve-unknown-fields", False)
        inner.setdefault("additionalProperties", open_to_all)
    return inner


class _Parsed(BaseException):
    """Ends a job when its flags are parsed, before it does anything."""

    def __init__(self, config: Any) -> None:
        self.config = config


def commands(text: str, programs: str) -> list[str]:
    """The lines of a Markdown text that are set as code and begin with one of `programs` (a|b|...); those
    that end in a backslash are joined with the next."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip() for line in joined.splitlines() if re.match(r" {4,}\S", line)]
    return [line for line in lines if re.match(rf"({programs}) ", line)]


def parsed(command: str) -> Any:
    """The configuration that the job of a command line makes of it, by the job's own parser.

    `python jobs/NAME.py FLAGS`, `python -m infra.NAME FLAGS` or `spair NAME FLAGS`, which
    `ray job submit ... --` may precede. Raises SystemExit where it does not take them.
    """
    words = shlex.split(command)
    words = words[next(k for k, word in enumerate(words) if word in ("python", "spair")) :]
    parse = entry.parsed

    def caught(*args: Any, **more: Any) -> None:
        raise _Parsed(parse(*args, **more))

    try:
        with patch.object(entry, "parsed", caught), patch.object(sys, "argv", _script(words)):
            runpy.run_path(str(PROJECT / sys.argv[0]), run_name="__main__")
    except _Parsed as end:
        return end.config
    raise AssertionError(f"{command} parses no flags")


def _script(words: list[str]) -> list[str]:
    """The file that a command runs, and its flags."""
    if words[0] == "spair":
        return ["jobs/spair.py", *words[1:]]
    return [words[2].replace(".", "/") + ".py", *words[3:]] if words[1] == "-m" else words[1:]
