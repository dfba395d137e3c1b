diffpack apply --bas x
