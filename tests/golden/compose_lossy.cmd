diffpack compose lossy.dpk -o whole.dpk
