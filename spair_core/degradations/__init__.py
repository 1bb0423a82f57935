"""What pictures suffer, drawn on clean ones with its exact mask, seeded; real material to lay over them.

A degradation is one module and one entry in `DEGRADATIONS`; `crops` cuts and degrades what training sees.
"""

__all__ = ["crops", "light", "motion", "rain", "raindrops", "shadows"]
