diffpack stats exact.dpk lossy.dpk --tensors --base base.safetensors
