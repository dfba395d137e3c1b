diffpack extract --base base.safetensors --tuned tuned.safetensors -o exact.dpk --force --no-layout --profile portable
