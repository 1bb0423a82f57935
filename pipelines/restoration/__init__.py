"""Bulk restoration: a prefix of pictures and clips in, the same restored out, one verdict an item."""

__all__ = ["manifest", "plan", "restore"]
