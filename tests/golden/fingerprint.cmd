diffpack fingerprint base.safetensors model tuned.safetensors
