diffpack -q extract --base base.safetensors --tuned tuned.safetensors
