"""What the pipelines cost beside the usual ways, and how they scale: `python -m pipelines.benchmark`."""

__all__ = ["reading", "restoring", "scale"]
