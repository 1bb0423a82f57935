"""Which version an alias of a registered model points to, where it pointed before, and what versions say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.services import tracking
from pipelines.services.models.resolving import REGISTRY, registered_model

HISTORY = 100
"""Moves of an alias that are remembered."""
RECORD_MARK = "**Promotion**"
"""Begins the part of a version's description that is written here."""
DESCRIPTION_LENGTH = 5000
"""What MLflow takes."""


class AliasMovedError(RuntimeError):
    """An alias points to another version than it did; the message says to which."""


def aliased(name: str, alias: str) -> int | None:
    """The version that an alias of a registered model points to, or None. Raises ModelError."""
    with tracking.explained():
        version = registered_model(f"{REGISTRY}{name}", name).aliases.get(alias)
    return None if version is None else int(version)


def history(name: str, alias: str) -> list[int]:
    """The versions that an alias was moved to, the last one last, as `move_alias` wrote them down."""
    with tracking.explained():
        tags = registered_model(f"{REGISTRY}{name}", name).tags
    return [int(number) for number in tags.get(f"{alias}.history", "").split()]


def move_alias(name: str, alias: str, version: int, *, expected: int | None, versions: Sequence[int]) -> None:
    """Point an alias to a version, and write down the `versions` it has pointed to.

    Raises AliasMovedError where it points no more to the `expected` version: MLflow has no conditional
    write, so this is looked up at the last moment. Raises TrackingError.
    """
    with tracking.explained():
        store = tracking.client()
        present = aliased(name, alias)
        if present != expected:
            raise AliasMovedError(
                f"{name}@{alias} points to {_told(present)} now, not to {_told(expected)}: someone else "
                "has moved it meanwhile; start again, to judge by that one"
            )
        kept = " ".join(str(number) for number in versions[-HISTORY:])
        # First: were the alias moved without it, there would be no way back.
        store.set_registered_model_tag(name, f"{alias}.history", kept)
        store.set_registered_model_alias(name, alias, str(version))


def _told(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def record(name: str, version: int, tags: Mapping[str, str], text: str | None = None) -> None:
    """Write tags on a version, and `text` below what its description says otherwise. Raises TrackingError."""
    with tracking.explained():
        store = tracking.client()
        for key, value in tags.items():
            store.set_model_version_tag(name, str(version), key, value[: tracking.TAG_LENGTH])
        if text is not None:
            own = (store.get_model_version(name, str(version)).description or "").partition(RECORD_MARK)[0]
            whole = f"{own.rstrip()}\n\n{RECORD_MARK}\n{text}".lstrip()
            store.update_model_version(name, str(version), whole[:DESCRIPTION_LENGTH])
