diffpack verify nowhere.dpk
