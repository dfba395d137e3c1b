diffpack extract --base base.safetensors --tuned tuned.safetensors -o new.dpk --density 0.1 --top-k 5
