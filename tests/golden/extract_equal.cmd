diffpack extract --base base.safetensors --tuned base.safetensors -o none.dpk
diffpack inspect none.dpk
diffpack stats none.dpk
diffpack verify none.dpk --base base.safetensors
