diffpack extract --base base.safetensors --tuned tuned.safetensors --meta nothing
