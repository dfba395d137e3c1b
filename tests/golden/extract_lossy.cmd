diffpack extract --base base.safetensors --tuned tuned.safetensors -o new.dpk --density 2% --values f16
