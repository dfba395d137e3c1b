diffpack extract --base base.safetensors
