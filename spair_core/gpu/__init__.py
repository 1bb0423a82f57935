"""What spares a GPU waiting for its host while footage is restored.

`uploaded` and `brought_back` copy pixels while it works, `tensor_of` copies some at once; `Replayed` makes
one launch of the many of a function whose shapes are fixed.
"""

from spair_core.gpu.replay import Replayed
from spair_core.gpu.transfer import brought_back, tensor_of, uploaded

__all__ = ["Replayed", "brought_back", "tensor_of", "uploaded"]
