diffpack apply --base other.safetensors exact.dpk -o out.safetensors -q -v --json
