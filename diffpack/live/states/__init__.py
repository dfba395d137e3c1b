"""State dicts of torch tensors: differences made, and written, where they lie."""
