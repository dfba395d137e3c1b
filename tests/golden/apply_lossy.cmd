diffpack apply --base base.safetensors lossy.dpk -o out
