"""Bulk restoration: what is under a prefix in, the same restored out, one verdict an item.

`restore` does it on a cluster, with a manifest; the room `here` a file at a time, in this process.
"""

__all__ = ["manifest", "plan", "restore", "settings"]
