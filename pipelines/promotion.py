"""Which version of a registered model is the champion, and by what right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import evaluation, manifest, models
from pipelines.evaluation import EvaluateConfig, SetResult
from pipelines.models import ModelError


@dataclass(frozen=True)
class PromoteConfig:
    """A candidate, and the sets on which it must be better than the champion."""

    candidate: str
    """The version to promote: models:/NAME/VERSION, or models:/NAME for its newest."""
    data: tuple[str, ...]
    """Shards or folders of pairs."""
    alias: str = "champion"
    """The alias to move."""
    margin: float = 0.05
    """dB of PSNR on Y by which the mean over the sets must be better."""
    tolerance: float = 0.1
    """dB by which no single set may be worse."""
    actors: int = 1
    """Processes that hold a model."""
    num_gpus: float = 0.0
    """GPUs of each of them."""
    limit: int | None = None
    """Look at only so many pictures of each set."""

    def evaluation(self) -> EvaluateConfig:
        """How both are judged."""
        return EvaluateConfig(self.data, actors=self.actors, num_gpus=self.num_gpus, limit=self.limit)


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why or why not."""

    promote: bool
    reason: str


def decide(
    candidate: Sequence[SetResult],
    champion: Sequence[SetResult] | None,
    *,
    margin: float,
    tolerance: float,
) -> Decision:
    """Hold a candidate against the champion, or against the pictures as they came where there is none.

    Both must have been judged on the same pictures; raises ValueError where they were not.
    """
    against = "the champion" if champion is not None else "the pictures as they came (there is no champion)"
    other = {r.name: (r.count, r.psnr_y) for r in champion} if champion is not None else None
    gains = {}
    for result in candidate:
        count, bar = (
            other.get(result.name, (0, 0.0)) if other is not None else (result.count, result.input_psnr_y)
        )
        if count != result.count or result.count == 0:
            raise ValueError(
                f"{result.name}: judged {result.count} pictures for one and {count} for the other"
            )
        gains[result.name] = result.psnr_y - bar
    mean = sum(gains.values()) / len(gains)
    worst = min(gains, key=lambda name: gains[name])
    if gains[worst] < -tolerance:
        return Decision(
            False,
            f"{gains[worst]:+.2f} dB against {against} on {worst}; at most {tolerance} dB worse is allowed",
        )
    if mean < margin:
        return Decision(False, f"{mean:+.2f} dB against {against} on average; {margin:+} dB is asked for")
    return Decision(
        True, f"{mean:+.2f} dB against {against} on average, {gains[worst]:+.2f} dB on {worst}, its worst set"
    )


def promote(config: PromoteConfig) -> tuple[Decision, str]:
    """Judge both, move the alias if it is deserved, and write the decision on the version.

    Gives the decision and the table behind it. Raises ModelError, StorageError, TrackingError, ValueError.
    """
    if not config.candidate.startswith(models.REGISTRY):
        raise ModelError(
            f"{config.candidate}: only a registered version can be promoted: models:/NAME/VERSION"
        )
    name, version = models.registered_version(config.candidate)
    current = models.champion(name, config.alias)
    if current == version:
        return Decision(False, f"version {version} is {name}@{config.alias} already"), ""
    judged = evaluation.evaluate(config.evaluation(), models.resolve(f"{models.REGISTRY}{name}/{version}"))
    bar = None
    if current is not None:
        bar = evaluation.evaluate(config.evaluation(), models.resolve(f"{models.REGISTRY}{name}/{current}"))
    decision = decide(judged, bar, margin=config.margin, tolerance=config.tolerance)
    tags = {
        "promotion.decision": "promoted" if decision.promote else "refused",
        "promotion.reason": decision.reason,
        "promotion.against": str(current) if current is not None else "none",
        "promotion.at": manifest.now(),
    }
    models.record(name, version, tags)
    if decision.promote:
        models.move_alias(name, config.alias, version)
    parts = [f"candidate {name}/{version}", evaluation.table(judged)]
    if bar is not None:
        parts += [f"champion {name}/{current}", evaluation.table(bar)]
    return decision, "\n".join(parts)
