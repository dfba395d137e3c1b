diffpack verify model
