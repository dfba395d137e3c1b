diffpack --version
