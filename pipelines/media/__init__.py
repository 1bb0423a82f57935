"""What a bucket holds and can be restored: one module a kind, behind one small interface."""

__all__ = ["video"]
