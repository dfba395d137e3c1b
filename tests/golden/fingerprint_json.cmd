diffpack fingerprint --json base.safetensors model
