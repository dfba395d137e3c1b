diffpack extract --json --base base.safetensors --tuned tuned.safetensors -o new.dpk --meta task=demo
