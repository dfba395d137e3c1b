diffpack stats exact.dpk
