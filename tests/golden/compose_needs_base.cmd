diffpack extract --base tuned.safetensors --tuned other.safetensors -o next.dpk --rename bert.= -q
diffpack compose exact.dpk next.dpk -o whole.dpk
