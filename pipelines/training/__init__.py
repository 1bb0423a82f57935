"""Training on Ray Train: Net_L, then Net_R, from shards to a registered model."""

__all__ = ["settings", "train"]
