diffpack verify cut.dpk
