"""Restoration: pictures and clips in, the same restored out, one verdict an item.

`restore` does it in bulk, on a cluster, with a manifest; `local` a file at a time, in this process.
"""

__all__ = ["local", "manifest", "named", "plan", "restore", "settings"]
