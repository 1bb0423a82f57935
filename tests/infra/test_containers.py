"""The recipes of the images, by what they say: nothing here can build one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ray._private.runtime_env import packaging as ray_packaging
from ray._private.runtime_env import working_dir

PROJECT = Path(__file__).resolve().parents[2]
DOCKER = PROJECT / "infra" / "docker"
RECIPES = sorted(DOCKER.glob("Containerfile*"))
LOCK = dict(line.split("==") for line in (PROJECT / "requirements.lock").read_text().split())
PROJECT_FILE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
recipes = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)


def steps(recipe: Path) -> list[tuple[str, str]]:
    """(instruction, the rest), without comments and with lines joined."""
    text = re.sub(r"^\s*#.*\n", "", recipe.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    words = (line.split(None, 1) for line in text.splitlines() if line.strip())
    return [(word.upper(), rest.strip()) for word, rest in words]


def stages(recipe: Path) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Name of each stage -> what it is made from, and its steps."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for word, rest in steps(recipe):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, mine := [])
        else:
            mine.append((word, rest))
    return found


def whole(recipe: Path, name: str) -> list[tuple[str, str]]:
    """The steps of a stage, those of the stages that it is made from before them."""
    made = stages(recipe)
    base, mine = made[name]
    return (whole(recipe, base) if base in made else []) + mine


def images(recipe: Path) -> list[str]:
    """The stages that nothing else is made of or copies from: what is built."""
    made = stages(recipe)
    used = {base for base, _ in made.values()}
    used |= set(re.findall(r"--from=(\S+)", recipe.read_text()))
    return [name for name in made if name not in used]


IMAGES = [(recipe, name) for recipe in RECIPES for name in images(recipe)]
built = pytest.mark.parametrize(("recipe", "name"), IMAGES, ids=[name for _, name in IMAGES])


def test_there_are_images_for_cpus_gpus_and_mlflow():
    assert [name for _, name in IMAGES] == ["cpu", "cuda", "mlflow"]


@recipes
def test_bases_are_pinned_by_their_full_version(recipe):
    made = stages(recipe)
    for base, _ in made.values():
        assert base in made or re.fullmatch(r"[\w/.-]+:\d+\.\d+\.\d+-[\w.-]+(@sha256:[0-9a-f]{64})?", base), (
            base
        )


@built
def test_an_image_is_run_by_a_user_and_says_how_it_is(recipe, name):
    all_steps = whole(recipe, name)
    (user,) = (rest for word, rest in all_steps if word == "USER")
    assert user.isdecimal()  # by number, so that Kubernetes can tell that it is not root
    assert user != "0"
    assert [word for word, _ in all_steps].count("HEALTHCHECK") == 1
    after = [word for word, _ in all_steps][[word for word, _ in all_steps].index("USER") :]
    assert "RUN" not in after
    assert "COPY" not in after


@built
def test_an_image_has_no_compiler_and_keeps_no_downloads(recipe, name):
    run = " ".join(rest for word, rest in whole(recipe, name) if word == "RUN")
    assert "apt-get" not in run
    assert not re.search(r"\b(gcc|g\+\+|build-essential|-devel)\b", recipe.read_text())
    no_cache = any(
        "PIP_NO_CACHE_DIR=1" in rest
        for _, made in stages(recipe).values()
        for word, rest in made
        if word == "ENV"
    )
    assert no_cache
    assert all("--no-cache-dir" in command for command in re.findall(r"pip install [^&]*", run))


def installs(recipe: Path) -> list[list[str]]:
    """The words of every `pip install`."""
    run = [rest for word, rest in steps(recipe) if word == "RUN"]
    commands = [command.strip() for rest in run for command in rest.split("&&")]
    return [command.split()[2:] for command in commands if command.startswith("pip install ")]


@recipes
def test_every_package_is_the_locks_or_named_with_its_version(recipe):
    assert installs(recipe)
    for words in installs(recipe):
        if "--no-deps" in words:
            continue
        assert words[:2] == ["--constraint", "requirements.lock"]
        for name in words[2:]:
            if re.fullmatch(r"[a-z][\w-]*", name):
                assert name in LOCK
            else:
                pinned = r"(\"?)[a-z][\w-]*(\[\w+\])?==[\d.]+\1"
                assert re.fullmatch(rf"{pinned}|-r|needs\.txt|\$.*|\"\$.*", name), name


@recipes
def test_what_is_copied_is_there_and_not_left_out_of_the_context(recipe):
    left_out = (PROJECT / ".dockerignore").read_text().split()
    for word, rest in steps(recipe):
        if word == "COPY" and "--from=" not in rest:
            for source in rest.split()[:-1]:
                assert (PROJECT / source).exists(), source
                assert not any(fnmatch(source, pattern) for pattern in left_out), source


def needed(names: list[str], python: str) -> Iterator[str]:
    """Everything that these requirements come to on Linux, of which this environment knows what it needs."""
    todo, seen = [Requirement(name) for name in names], set()
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        for extra in {"", *one.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            yield name
            try:
                theirs = requires(name) or []
            except PackageNotFoundError:
                continue
            todo += [
                other
                for other in map(Requirement, theirs)
                if not other.marker or other.marker.evaluate({**environment, "extra": extra})
            ]


def test_the_lock_pins_all_that_the_images_python_needs():
    """requirements.lock is made on the oldest Python: what only newer ones need would be missing from it."""
    (version,) = {
        base.partition(":")[2].partition("-")[0]
        for recipe in RECIPES
        for base, _ in stages(recipe).values()
        if ":" in base
    }
    python = ".".join(version.split(".")[:2])
    assert version in SpecifierSet(PROJECT_FILE["requires-python"])
    # torch's build brings these, for CUDA or not (Makefile).
    brought = re.compile(r"nvidia-.*|cuda-.*|triton")
    for name in set(needed(PROJECT_FILE["dependencies"], python)):
        assert name in LOCK or brought.fullmatch(name), f"{name} is not pinned for Python {python}"
    for one in map(Requirement, PROJECT_FILE["dependencies"]):
        assert one.specifier.contains(LOCK[canonicalize_name(one.name)])


def test_a_job_that_is_submitted_sends_its_weights_and_no_more_than_ten_megabytes():
    """`ray job submit --working-dir .`, whose limit is 500 MiB and whose patience is shorter."""
    sent: dict[str, int] = {}

    def take(path: Path) -> None:
        if path.is_file():  # Ray's zip does not compress them
            sent[path.relative_to(PROJECT).as_posix()] = path.stat().st_size

    excludes = ray_packaging._get_excludes(
        PROJECT, working_dir.ray_constants.get_runtime_env_default_excludes()
    )
    ray_packaging._dir_travel(PROJECT, [excludes], take, include_gitignore=True)
    assert sum(sent.values()) < 10_000_000
    assert {
        "spair_core/shipped/rain-light.safetensors.xz",
        "spair_core/shipped/footage-light.safetensors.xz",
        "spair_core/shipped/raindrop-light.safetensors.xz",
    } <= sent.keys()
    assert {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "jobs").glob("*.py")} <= sent.keys()
    assert not [name for name in sent if name.startswith(("tests/", ".venv/", ".git/", "infra/images/"))]
