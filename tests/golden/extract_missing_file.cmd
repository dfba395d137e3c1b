diffpack extract --base nowhere.safetensors --tuned tuned.safetensors
