diffpack apply --base base.safetensors exact.dpk -o out.safetensors --json
