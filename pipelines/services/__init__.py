"""What the other rooms stand on: object storage, the Ray cluster, MLflow, and models by any of their names.

It knows pictures and networks only as files.
"""

__all__ = ["cluster", "faults", "models", "quarantine", "remote", "storage", "tracking"]
