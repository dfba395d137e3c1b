diffpack extract --base - --tuned tuned.safetensors
