"""How pictures go through a network, where nothing else is said. What only asks for it needs no torch."""

TILE = 1920
"""Longest side of what goes through in one piece: a full HD frame does, in 3.5 GB at most on a CPU."""
OVERLAP = 64
"""Pixels that neighbouring tiles share; there their results fade into one another."""
MIN_DEGRADED = 0.0022
"""A picture of which a smaller share is degraded, and visibly changed, comes back as it is; a third is enough
where it is spread over the picture as rain is."""


def check_tile(tile: int) -> None:
    """Raises ValueError where tiles with sides of so many pixels would be all overlap."""
    if tile < 2 * OVERLAP:
        raise ValueError(f"tile must be at least {2 * OVERLAP} pixels, not {tile}")
