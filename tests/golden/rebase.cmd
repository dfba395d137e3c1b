diffpack rebase exact.dpk --base base.safetensors --onto other.safetensors -o r.dpk
diffpack apply --base other.safetensors r.dpk -o out.safetensors
