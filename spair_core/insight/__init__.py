"""What a model does with a picture, as the paper's supplement shows it, as numbers and maps.

`analysis` makes them; `probes` looks on at SFM and SNL while the network runs.
"""

__all__ = ["analysis", "probes"]
