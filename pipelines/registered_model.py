"""The model as MLflow loads it (models from code): encoded pictures in, restored pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from spair_core import images, inference, weights


class RestorationModel(PythonModel):
    """Restores a column `picture` of encoded pictures, each in its own format.

    A picture that cannot be decoded raises PictureError: a served model answers with its reason.
    """

    # MLflow passes its arguments by these very names.
    def load_context(self, context: Any) -> None:
        """Read the weights."""
        self.model, self.card = weights.load(Path(context.artifacts["weights"]).read_bytes())

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """`restored` (encoded as it came) and `degraded_share` of every picture."""
        return pd.DataFrame([self._restore(data) for data in model_input["picture"]])

    def _restore(self, data: bytes) -> dict[str, Any]:
        picture = images.decode(data)
        result = inference.restore(self.model, picture.pixels[None])
        restored = images.encode(picture.with_pixels(result.pixels[0]))
        return {"restored": restored, "degraded_share": float(result.mask.mean())}


mlflow.models.set_model(RestorationModel())
