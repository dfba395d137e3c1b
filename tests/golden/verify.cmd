diffpack verify exact.dpk
