"""A change of matrices as few directions: matrices seen in tensors, their singular vectors, factors at a step."""
