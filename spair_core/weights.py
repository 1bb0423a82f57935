"""Model files: safetensors whose header carries all that is needed to use them, and the shipped ones.

The header's one entry `spair` is JSON: the network's configuration, the task, the mask threshold
and where the weights come from. Nothing in such a file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, deserialize

from spair_core.network import NetworkConfig

if TYPE_CHECKING:
    import torch

    from spair_core.network import Spair

HEADER_KEY = "spair"
MAX_HEADER_BYTES = 1 << 20


class WeightsError(ValueError):
    """These bytes are not a SPAIR model file; the message says why."""


@dataclass(frozen=True)
class ModelCard:
    """What a weights file says of itself.

    `mask_threshold` in [0, 1] is the difference over which training counted a pixel as degraded.
    """

    network: NetworkConfig
    task: str
    mask_threshold: float
    provenance: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The header's text, the same for the same card."""
        values = {
            "network": self.network.to_dict(),
            "task": self.task,
            "mask_threshold": self.mask_threshold,
            "provenance": self.provenance,
        }
        return json.dumps(values, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ModelCard:
        """Raises WeightsError where the text is not such a header."""
        try:
            values: dict[str, Any] = json.loads(text)
            return ModelCard(
                NetworkConfig.from_dict(values["network"]),
                str(values["task"]),
                float(values["mask_threshold"]),
                {str(k): str(v) for k, v in values["provenance"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"the model's configuration cannot be read ({error!r}): it was written by another "
                "version of SPAIR; use the version that trained it"
            ) from error


def save(model: Spair, card: ModelCard, dtype: torch.dtype | None = None) -> bytes:
    """A model file, in float32; `dtype` float16 halves its size (loading always gives float32)."""
    import torch  # cards and the bytes of files are had without it
    from safetensors.torch import save as save_tensors

    kept = dtype or torch.float32
    tensors = {name: value.detach().cpu().to(kept).contiguous() for name, value in model.state_dict().items()}
    return save_tensors(tensors, metadata={HEADER_KEY: card.to_json()})


def read_card(data: bytes) -> ModelCard:
    """The card of a model file, without reading its tensors. Raises WeightsError."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise WeightsError("not a safetensors file (train or export a model with SPAIR's training jobs)")
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise WeightsError("not a safetensors file: its header is not JSON") from error
    if HEADER_KEY not in metadata:
        raise WeightsError("a safetensors file, but not one of SPAIR: its header names no network")
    return ModelCard.from_json(metadata[HEADER_KEY])


def check(data: bytes) -> ModelCard:
    """The card of a model file that is whole; whether its tensors fit the network, `load` finds out.

    Takes no torch. Raises WeightsError.
    """
    card = read_card(data)
    with _of_a_whole_file():
        deserialize(data)
    return card


def load(data: bytes) -> tuple[Spair, ModelCard]:
    """The model (float32, on the CPU, in evaluation mode) and its card. Raises WeightsError."""
    from safetensors.torch import load as load_tensors

    from spair_core.degradations.catalogue import is_sized
    from spair_core.network import Spair

    card = read_card(data)
    with _of_a_whole_file():
        tensors = load_tensors(data)
    try:
        model = Spair(card.network)
        model.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (RuntimeError, ValueError, TypeError) as error:
        told = " ".join(str(error).split())
        raise WeightsError(f"the tensors do not fit the configuration in the header: {told}") from error
    model.scales = is_sized(card.task)
    return model.eval(), card


@contextmanager
def _of_a_whole_file() -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise WeightsError(f"the model file is damaged or cut short: {error}") from error


def digest(data: bytes) -> str:
    """SHA-256 of a model file, in hexadecimal: a model's identity everywhere in SPAIR."""
    return hashlib.sha256(data).hexdigest()


SHIPPED = ".safetensors.xz"
"""Packed as numbers of two bytes (xz --lzma2=preset=9,lc=0,lp=1,pb=1): Ray does not compress a job."""


def shipped_names() -> tuple[str, ...]:
    """Names of the weights that come with SPAIR, such as `rain-light`."""
    files = (file.name for file in (resources.files("spair_core") / "shipped").iterdir())
    return tuple(sorted(name.removesuffix(SHIPPED) for name in files if name.endswith(SHIPPED)))


def named(name: str) -> bytes:
    """A model file by its path, or shipped weights by their name. Raises WeightsError where there is neither,
    and OSError where the file cannot be read."""
    if name in shipped_names():
        return shipped(name)
    if not Path(name).exists():
        raise WeightsError(f"{name}: no such file, nor shipped weights: {', '.join(shipped_names())}")
    return Path(name).read_bytes()


def shipped(name: str) -> bytes:
    """The model file of shipped weights. Raises WeightsError where there are none of that name."""
    if name not in shipped_names():
        raise WeightsError(f"no weights named {name!r} are shipped; there are: {', '.join(shipped_names())}")
    return lzma.decompress((resources.files("spair_core") / "shipped" / f"{name}{SHIPPED}").read_bytes())
