"""What pictures suffer, drawn on clean ones with its exact mask, seeded; real material to lay over them.

A degradation is one module and one entry in `catalogue`; `crops` cuts and degrades what training sees.
"""

__all__ = ["catalogue", "crops", "degradation", "lookalikes", "motion", "rain", "raindrops", "shadows"]
