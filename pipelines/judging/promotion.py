"""Which version of a registered model is the champion, by what right, and the way back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from pipelines.data.owners import LayoutName
from pipelines.judging import clips, evaluation
from pipelines.judging.decision import Bars, Decision, all_of, decide, decide_clean, decide_clips, measure_of
from pipelines.judging.evaluation import EvaluateConfig
from pipelines.judging.untouched import untouched
from pipelines.services import models, tracking
from pipelines.services.models import AliasMovedError, ModelError, ResolvedModel


@dataclass(frozen=True)
class PromoteConfig:
    """A candidate, and the sets on which it must be better than the champion; or a model to roll back."""

    candidate: str | None = None
    """The version to promote: models:/NAME/VERSION, or models:/NAME for its newest."""
    data: tuple[str, ...] = ()
    """Shards or folders of pairs."""
    layout: LayoutName = "folders"
    """How the folders of `data` are laid out, where they are not shards."""
    footage: tuple[str, ...] = ()
    """Clips with their truth, by which models for footage are judged: also by flicker."""
    footage_layout: LayoutName = "clip-pairs"
    """How `footage` is laid out: input/NAME.mp4 with target/NAME.mp4, or folders of frames (folders)."""
    clean: tuple[str, ...] = ()
    """Clean pictures that the candidate must leave as they are: folders, shards or pairs (their targets)."""
    rollback: str | None = None
    """Instead: models:/NAME, whose alias goes back to where it was before the last promotion."""
    alias: str = "champion"
    """The alias to move."""
    bars: Bars = field(default_factory=Bars)
    actors: int = 1
    """Processes that hold a model."""
    num_gpus: float = 0.0
    """GPUs of each of them."""
    limit: int | None = None
    """Look at only so many pictures of each set, and frames of each clip."""
    experiment: str = "spair-promotion"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        if (self.candidate is None) == (self.rollback is None):
            raise ValueError("name a --candidate to promote, or a model to --rollback")
        if self.candidate is not None and not self.data + self.footage:
            raise ValueError("name the --data (or --footage) on which the candidate must be better")
        self.evaluation()  # what cannot be is told at once

    def evaluation(self) -> EvaluateConfig:
        """How both are judged."""
        return EvaluateConfig(
            self.data,
            layout=self.layout,
            actors=self.actors,
            num_gpus=self.num_gpus,
            limit=self.limit,
        )


class Part(NamedTuple):
    """A part of the decision, what it rests on, and that as lines of a table."""

    decision: Decision
    facts: dict[str, Any]
    lines: list[str]


def promote(config: PromoteConfig) -> tuple[Decision, str]:
    """Judge both, move the alias if it is deserved, and write the decision down; or roll back.

    Gives the decision and the table behind it. The decision is kept in the version's tags and description,
    and with all that it rests on in a run of `experiment`. Raises ModelError, StorageError, TrackingError,
    ValueError.
    """
    if config.rollback is not None:
        return _rolled_back(config.rollback, config.alias), ""
    name, version = models.registered_version(_registered(config.candidate or ""))
    current = models.aliased(name, config.alias)
    if current == version:
        return Decision(False, f"version {version} is {name}@{config.alias} already"), ""
    with tracking.run(config.experiment, f"{models.version_uri(name, version)} @{config.alias}") as run:
        run.log_params(asdict(config) | {"champion": current})
        decision, facts, table = _judged(config, name, version, current)
        if decision.promote:
            decision = _moved(config.alias, name, version, current, decision)
        text = f"{table}\n{'promoted' if decision.promote else 'not promoted'}: {decision.reason}"
        tags = {
            "decision": "promoted" if decision.promote else "refused",
            "reason": decision.reason,
            "alias": config.alias,
            "against": str(current) if current is not None else "none",
            "at": tracking.now(),
        }
        run.set_tags(tags)
        run.log_bytes("decision.txt", text.encode())
        run.log_bytes("decision.json", json.dumps({**tags, **facts}, indent=1).encode())
        prefixed = {f"promotion.{key}": value for key, value in (tags | {"run": run.run_id}).items()}
        models.record(name, version, prefixed, f"```\n{text}\n```")
    return decision, table


def _registered(spec: str) -> str:
    if not spec.startswith(models.REGISTRY):
        raise ModelError(f"{spec}: only a registered version can be promoted: models:/NAME/VERSION")
    return spec


def _judged(
    config: PromoteConfig, name: str, version: int, current: int | None
) -> tuple[Decision, dict[str, Any], str]:
    """The decision, what it rests on, and that as a table."""
    uris = [models.version_uri(name, number) for number in (version, current) if number is not None]
    contenders = [models.resolve(uri) for uri in uris]
    judges = ((_on_pictures, config.data), (_on_clips, config.footage), (_on_clean, config.clean))
    parts = [judge(config, contenders) for judge, wanted in judges if wanted]
    lines = [line for part in parts for line in part.lines]
    if not config.clean:
        lines.append("clean pictures: none were named (--clean), so none were looked at")
    facts = {key: value for part in parts for key, value in part.facts.items()}
    return all_of([part.decision for part in parts]), facts, "\n".join(lines)


ROLES = ("candidate", "champion")


def _on_pictures(config: PromoteConfig, contenders: Sequence[ResolvedModel]) -> Part:
    found = [evaluation.evaluate(config.evaluation(), model) for model in contenders]
    decision = decide(
        found[0], found[1] if found[1:] else None, config.bars, measure_of(contenders[0].card.task)
    )
    return Part(
        decision,
        {role: [result.to_dict() for result in one] for role, one in zip(ROLES, found, strict=False)},
        _titled(contenders, [evaluation.table(one) for one in found]),
    )


def _on_clips(config: PromoteConfig, contenders: Sequence[ResolvedModel]) -> Part:
    how = replace(config.evaluation(), data=config.footage, layout=config.footage_layout, footage=True)
    found = [clips.judge_clips(how, model) for model in contenders]
    decision = decide_clips(found[0], found[1] if found[1:] else None, config.bars)
    facts = {
        f"{role}'s clips": [clip.to_dict() for clip in one] for role, one in zip(ROLES, found, strict=False)
    }
    return Part(decision, facts, _titled(contenders, [clips.table(one) for one in found]))


def _on_clean(config: PromoteConfig, contenders: Sequence[ResolvedModel]) -> Part:
    left = untouched(
        contenders, config.clean, actors=config.actors, num_gpus=config.num_gpus, limit=config.limit
    )
    decision = decide_clean(left[0], left[1] if left[1:] else None, config.bars)
    return Part(decision, {"clean": [asdict(one) for one in left]}, [str(one) for one in left])


def _titled(contenders: Sequence[ResolvedModel], tables: Sequence[str]) -> list[str]:
    named = zip(ROLES, contenders, tables, strict=False)
    return [f"{role} {model.uri}\n{table}" for role, model, table in named]


def _moved(alias: str, name: str, version: int, current: int | None, decision: Decision) -> Decision:
    """The decision carried out, or turned round where the alias was moved in the meantime."""
    before = [] if current is None else [current]
    past = models.history(name, alias)
    versions = [*(past if past[-1:] == before else before), version]
    try:
        models.move_alias(name, alias, version, expected=current, versions=versions)
    except AliasMovedError as error:
        return Decision(False, str(error))
    return decision


def _rolled_back(spec: str, alias: str) -> Decision:
    name, _ = models.registered_version(_registered(spec))
    current, past = models.aliased(name, alias), models.history(name, alias)
    if current is None:
        return Decision(False, f"{name} has no @{alias}: nothing was promoted")
    if past[-1:] != [current]:
        return Decision(
            False,
            f"{name}@{alias} was set to version {current} by hand, not promoted: what was before is unknown; "
            f"promote the version that should be there",
        )
    if len(past) == 1:
        return Decision(False, f"version {current} is the first {name}@{alias}: there is none to go back to")
    previous = models.registered_version(models.version_uri(name, past[-2]))[1]
    models.move_alias(name, alias, previous, expected=current, versions=past[:-1])
    at = tracking.now()
    models.record(name, current, {"promotion.decision": "rolled back", "promotion.rolled_back": at})
    models.record(name, previous, {"promotion.restored": f"{at}, after version {current}"})
    return Decision(True, f"{name}@{alias} is version {previous} again, as it was before version {current}")
