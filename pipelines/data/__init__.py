"""Data sets: from the folders their owners ship to Parquet shards, and from shards to batches of crops.

`owners` describes layouts, `layouts` finds pairs in them, `ingest` packs these, `shards` says what a shard
is, `crop_stream` makes an epoch of it.
"""

__all__ = ["crop_stream", "ingest", "layouts", "owners", "pairs", "shards"]
