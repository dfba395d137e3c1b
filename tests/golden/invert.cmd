diffpack invert exact.dpk --base base.safetensors -o undo.dpk
diffpack apply --base tuned.safetensors undo.dpk -o out.safetensors
diffpack fingerprint base.safetensors out.safetensors
