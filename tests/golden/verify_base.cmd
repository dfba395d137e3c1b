diffpack verify lossy.dpk --base base.safetensors
