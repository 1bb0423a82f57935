"""Which version of a registered model is the champion, by what right, and the way back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pipelines.data.owners import LayoutName
from pipelines.judging import evaluation
from pipelines.judging.evaluation import EvaluateConfig, SetResult
from pipelines.judging.untouched import Untouched, untouched
from pipelines.services import models, tracking
from pipelines.services.models import AliasMovedError, ModelError
from spair_core.degradations import catalogue

Metric = Literal["psnr_y", "psnr_rgb"]
"""Tasks that the field judges on Y; the others are judged on RGB."""


@dataclass(frozen=True)
class PromoteConfig:
    """A candidate, and the sets on which it must be better than the champion; or a model to roll back."""

    candidate: str | None = None
    """The version to promote: models:/NAME/VERSION, or models:/NAME for its newest."""
    data: tuple[str, ...] = ()
    """Shards or folders of pairs."""
    layout: LayoutName = "folders"
    """How the folders of `data` are laid out, where they are not shards."""
    rollback: str | None = None
    """Instead: models:/NAME, whose alias goes back to where it was before the last promotion."""
    alias: str = "champion"
    """The alias to move."""
    margin: float = 0.05
    """dB of PSNR by which the mean over the sets must be better: on Y for rain and raindrops, else on RGB."""
    tolerance: float = 0.1
    """dB by which no single set may be worse."""
    clean: tuple[str, ...] = ()
    """Clean pictures that the candidate must leave as they are: folders, shards or pairs (their targets)."""
    clean_psnr: float = 35.0
    """dB of PSNR (RGB) that clean pictures must keep on average, against themselves."""
    clean_tolerance: float = 0.5
    """dB by which the candidate may keep them worse than the champion does."""
    actors: int = 1
    """Processes that hold a model."""
    num_gpus: float = 0.0
    """GPUs of each of them."""
    limit: int | None = None
    """Look at only so many pictures of each set."""
    experiment: str = "spair-promotion"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        if (self.candidate is None) == (self.rollback is None):
            raise ValueError("name a --candidate to promote, or a model to --rollback")
        if self.candidate is not None and not self.data:
            raise ValueError("name the --data on which the candidate must be better")

    def evaluation(self) -> EvaluateConfig:
        """How both are judged."""
        return EvaluateConfig(
            self.data,
            layout=self.layout,
            actors=self.actors,
            num_gpus=self.num_gpus,
            limit=self.limit,
        )


@dataclass(frozen=True)
class Decision:
    """Whether to promote (or to roll back), and why or why not."""

    promote: bool
    reason: str


def metric_of(task: str) -> Metric:
    """The score that models of a task are judged by; that of a joint model is written rain+raindrop."""
    return "psnr_y" if catalogue.measures(task) == {"Y"} else "psnr_rgb"


def decide(
    candidate: Sequence[SetResult],
    champion: Sequence[SetResult] | None,
    *,
    margin: float,
    tolerance: float,
    metric: Metric = "psnr_y",
) -> Decision:
    """Hold a candidate against the champion by `metric`, or against the pictures as they came.

    Both must have been judged on the same pictures; raises ValueError where they were not.
    """
    against = "the champion" if champion is not None else "the pictures as they came (there is no champion)"
    if champion is not None:
        other = {r.name: (r.count, getattr(r, metric)) for r in champion}
    else:
        other = {r.name: (r.count, getattr(r, f"input_{metric}")) for r in candidate}
    gains = {}
    for result in candidate:
        count, bar = other.get(result.name, (0, 0.0))
        if count != result.count or result.count == 0:
            raise ValueError(
                f"{result.name}: judged {result.count} pictures for one and {count} for the other"
            )
        gains[result.name] = getattr(result, metric) - bar
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


def decide_clean(
    candidate: Untouched, champion: Untouched | None, *, least: float, tolerance: float
) -> Decision:
    """Whether a candidate leaves clean pictures clean: `least` dB, and the champion's less `tolerance`.

    Both must have been judged on the same pictures.
    """
    kept = f"clean pictures keep {candidate.psnr:.2f} dB"
    if candidate.psnr < least:
        return Decision(False, f"{kept}; {least} dB are asked for")
    if champion is not None and candidate.psnr < champion.psnr - tolerance:
        return Decision(
            False, f"{kept}, with the champion {champion.psnr:.2f} dB; {tolerance} dB less is allowed"
        )
    return Decision(True, kept)


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
) -> tuple[Decision, Mapping[str, object], str]:
    """The decision, what it rests on, and that as a table."""
    uris = [models.version_uri(name, number) for number in (version, current) if number is not None]
    contenders = [models.resolve(uri) for uri in uris]
    results = [evaluation.evaluate(config.evaluation(), model) for model in contenders]
    candidate, champion = results[0], results[1] if current is not None else None
    metric = metric_of(contenders[0].card.task)
    decision = decide(candidate, champion, margin=config.margin, tolerance=config.tolerance, metric=metric)
    roles = ("candidate", "champion")
    parts = [
        f"{role} {uri}\n{evaluation.table(r)}" for role, uri, r in zip(roles, uris, results, strict=False)
    ]
    facts: dict[str, object] = {
        role: [result.to_dict() for result in r] for role, r in zip(roles, results, strict=False)
    }
    if not config.clean:
        parts.append("clean pictures: none were named (--clean), so none were looked at")
        return decision, facts, "\n".join(parts)
    left = untouched(
        contenders, config.clean, actors=config.actors, num_gpus=config.num_gpus, limit=config.limit
    )
    clean = decide_clean(
        left[0],
        left[1] if current is not None else None,
        least=config.clean_psnr,
        tolerance=config.clean_tolerance,
    )
    parts += [str(result) for result in left]
    facts["clean"] = [asdict(result) for result in left]
    deciding = [d for d in (decision, clean) if not d.promote] or [decision, clean]
    both = Decision(decision.promote and clean.promote, "; ".join(d.reason for d in deciding))
    return both, facts, "\n".join(parts)


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
