diffpack apply --base base.safetensors exact.dpk -o out.safetensors
diffpack fingerprint out.safetensors tuned.safetensors
