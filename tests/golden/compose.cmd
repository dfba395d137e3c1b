diffpack extract --base base.safetensors --tuned base.safetensors -o same.dpk -q
diffpack compose same.dpk exact.dpk -o whole.dpk
diffpack apply --base base.safetensors whole.dpk -o out.safetensors
