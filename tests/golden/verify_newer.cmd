diffpack verify newer.dpk
