"""Data sets: from the folders their owners ship to Parquet shards, and from shards to batches of crops.

`layouts` finds pairs, `ingest` packs them, `shards` says what a shard is, `crop_stream` makes an epoch of it.
"""

__all__ = ["crop_stream", "ingest", "layouts", "pairs", "shards"]
