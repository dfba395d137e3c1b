diffpack convert exact.dpk -o matrices --to scipy
diffpack convert matrices -o back.dpk --meta seen=twice
