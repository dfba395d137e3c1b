diffpack merge lossy.dpk exact.dpk -o m.dpk
