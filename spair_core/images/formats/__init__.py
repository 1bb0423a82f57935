"""Picture formats: one module and one entry in `catalogue` each, all in Pillow's hands.

`picture` is what they decode to and encode from.
"""

__all__ = ["catalogue", "picture", "picture_format"]
