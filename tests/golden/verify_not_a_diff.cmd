diffpack verify base.safetensors
