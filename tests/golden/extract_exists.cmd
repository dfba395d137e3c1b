diffpack extract --base base.safetensors --tuned tuned.safetensors -o exact.dpk
