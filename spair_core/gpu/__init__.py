"""What spares a GPU waiting for its host while footage is restored.

`uploaded` and `brought_back` copy pixels while it works; `tensor_of` copies some at once.
"""

from spair_core.gpu.transfer import brought_back, tensor_of, uploaded

__all__ = ["brought_back", "tensor_of", "uploaded"]
