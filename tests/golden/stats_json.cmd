diffpack stats exact.dpk --json --tensors
