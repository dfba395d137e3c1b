diffpack inspect exact.dpk --json --tensors
