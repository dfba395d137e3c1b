diffpack apply --base base.safetensors exact.dpk -o no/out.safetensors
