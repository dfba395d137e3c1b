diffpack apply --base base.safetensors exact.dpk -o -
