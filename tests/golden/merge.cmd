diffpack merge lossy.dpk lossy.dpk --weights 0.5,0.25 --method ties --density 1% --base base.safetensors -o m.dpk
diffpack stats m.dpk
diffpack apply --base base.safetensors m.dpk -o out.safetensors
