diffpack --help
