diffpack extrakt
