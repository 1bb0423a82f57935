"""One file after another in this process: without cluster, manifest, MLflow or bucket."""

__all__ = ["local", "named"]
