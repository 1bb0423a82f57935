"""What the other rooms stand on: object storage, the Ray cluster, MLflow, and below it a room for models.

It knows pictures and networks only as files.
"""

__all__ = ["cluster", "faults", "locations", "quarantine", "remote", "storage", "tracking"]
