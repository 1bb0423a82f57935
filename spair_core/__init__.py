"""The model and its pictures: arrays and tensors in, arrays and tensors out, no storage and no cluster."""
