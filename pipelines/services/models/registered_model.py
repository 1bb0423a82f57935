"""The model as MLflow loads it (models from code): encoded pictures in, restored pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from spair_core import images, inference, weights
from spair_core.images import PictureError


class RestorationModel(PythonModel):
    """Restores encoded pictures: a list of bytes, or a table whose first column holds them.

    Gives a row for each, with `restored` (encoded as it came) and `degraded_share` in [0, 1]. A picture
    that cannot be decoded raises PictureError with its number: a served model answers with the reason.
    """

    # MLflow passes its arguments by these very names.
    def load_context(self, context: Any) -> None:
        """Read the weights."""
        self.model, self.card = weights.load(Path(context.artifacts["weights"]).read_bytes())

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Restore every row."""
        pictures = model_input.iloc[:, 0]
        return pd.DataFrame([self._restore(number, data) for number, data in enumerate(pictures)])

    def _restore(self, number: int, data: bytes) -> dict[str, Any]:
        try:
            picture = images.decode(data)
        except PictureError as error:
            raise PictureError(f"picture {number}: {error}") from error
        result = inference.restore(self.model, picture.pixels[None])
        restored = images.encode(picture.with_pixels(result.pixels[0]))
        return {"restored": restored, "degraded_share": float(result.mask.mean())}


mlflow.models.set_model(RestorationModel())
