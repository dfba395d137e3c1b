diffpack diff exact.dpk lossy.dpk --base base.safetensors --tensors
