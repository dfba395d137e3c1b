diffpack inspect exact.dpk
