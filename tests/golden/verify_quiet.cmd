diffpack verify -q exact.dpk
