diffpack extract --base base.safetensors --tuned tuned.safetensors --density much
