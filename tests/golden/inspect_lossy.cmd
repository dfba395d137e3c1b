diffpack inspect lossy.dpk --tensors
