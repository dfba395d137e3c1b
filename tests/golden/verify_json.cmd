diffpack verify exact.dpk --base base.safetensors --json
