diffpack extract --base base.safetensors --tuned tuned.safetensors -o plain.dpk --no-layout --values f16 -q
diffpack merge lossy.dpk plain.dpk --method average --base base.safetensors -o m.dpk --json
