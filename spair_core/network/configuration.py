"""What a network is, without any of its weights: widths, depths and what the ablations leave out.

Nothing here needs torch, so that model files can be told apart and looked at where no network is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

MULTIPLE = 8
"""The networks' coarsest level is 1/8; other sizes are padded inside."""


@dataclass(frozen=True)
class LocalizerConfig:
    """Widths at 1/2, 1/4 and 1/8 of the resolution, and the dense blocks' growth and layers there.

    `squeeze` puts squeeze-and-excitation after each dense block.
    """

    channels: tuple[int, int, int] = (32, 48, 64)
    growth: tuple[int, int, int] = (16, 16, 24)
    encoder_layers: tuple[int, int, int] = (3, 3, 3)
    decoder_layers: tuple[int, int] = (2, 2)
    squeeze: bool = False


@dataclass(frozen=True)
class RestorerConfig:
    """Widths and dense blocks at 1/2, 1/4, 1/8; `full_channels` and SC's growth also at full resolution.

    `modulate`, `decoder` and `attention` choose among the paper's ablations; `guarded` turns on the
    bounds that keep SFM and SNL stable.
    """

    channels: tuple[int, int, int] = (48, 72, 96)
    growth: tuple[int, int, int] = (16, 24, 32)
    layers: tuple[int, int, int] = (3, 3, 4)
    full_channels: int = 16
    sparse_growth: tuple[int, int, int, int] = (16, 24, 32, 48)
    modulate: bool = True
    decoder: Literal["sparse", "dense"] = "sparse"
    attention: Literal["sparse", "full", "none"] = "sparse"
    guarded: bool = True


@dataclass(frozen=True)
class NetworkConfig:
    """Both networks. A pixel counts as degraded where Net_L's probability exceeds `binarize`.

    A picture is trusted to be degraded where of those pixels a share of `sure` is so surely (`SURE`): texture
    that looks like rain is doubtful everywhere. With `references` they see beside a frame what its neighbours
    know of it (`spair_core.footage`).
    """

    localizer: LocalizerConfig = field(default_factory=LocalizerConfig)
    restorer: RestorerConfig = field(default_factory=RestorerConfig)
    binarize: float = 0.4
    references: bool = False
    sure: float = 0.0

    def at_thresholds_of(self, other: NetworkConfig) -> NetworkConfig:
        """This network where weights of another are put in: thresholds go with the weights."""
        return replace(self, binarize=other.binarize, sure=other.sure)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as kept in a weights file's header."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> NetworkConfig:
        """The inverse of `to_dict`. Raises TypeError or KeyError on another structure."""

        def section(name: str) -> dict[str, Any]:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in values[name].items()}

        return NetworkConfig(
            LocalizerConfig(**section("localizer")),
            RestorerConfig(**section("restorer")),
            float(values["binarize"]),
            bool(values.get("references", False)),
            float(values.get("sure", 0.0)),
        )


def light() -> NetworkConfig:
    """The preset for CPUs and for footage by the million."""
    return NetworkConfig()


def full() -> NetworkConfig:
    """The preset with the paper's decoder widths (64, 128, 256)."""
    return NetworkConfig(
        LocalizerConfig(
            channels=(48, 64, 96), growth=(24, 24, 32), encoder_layers=(4, 4, 4), decoder_layers=(3, 3)
        ),
        RestorerConfig(
            channels=(64, 128, 256),
            growth=(32, 48, 64),
            layers=(4, 4, 4),
            full_channels=32,
            sparse_growth=(24, 32, 48, 64),
        ),
    )


def paper() -> NetworkConfig:
    """`full`, with SFM and SNL computed by the letter of equations 1 and 3-5 (no guards)."""
    config = full()
    return replace(config, restorer=replace(config.restorer, guarded=False), binarize=0.5)


PRESETS: dict[str, Callable[[], NetworkConfig]] = {"light": light, "full": full, "paper": paper}
"""By name."""


def ablation(number: int, base: NetworkConfig | None = None) -> NetworkConfig:
    """Net1 to Net5 of the paper's table 6, on the widths of `base` (default: light).

    Raises ValueError for another number.
    """
    choices: dict[int, dict[str, Any]] = {
        1: {"modulate": False, "decoder": "dense", "attention": "none"},
        2: {"decoder": "dense", "attention": "none"},
        3: {"attention": "none"},
        4: {"attention": "full"},
        5: {},
    }
    if number not in choices:
        raise ValueError(f"the paper's ablations are Net1 to Net5, not Net{number}")
    base = base or light()
    return replace(base, restorer=replace(base.restorer, **choices[number]))
