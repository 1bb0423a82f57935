"""How good a model is: on sets with truth, beside the paper, against another one, on clean pictures.

`promotion` decides by it which version is champion.
"""

__all__ = ["clips", "comparison", "evaluation", "paper", "promotion"]
