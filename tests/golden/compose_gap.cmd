diffpack compose exact.dpk exact.dpk -o whole.dpk
