diffpack stats exact.dpk --base other.safetensors
