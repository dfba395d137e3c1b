"""One tool a file: what it reads and writes. Found by name in `diffpack.bridges.registry`, loaded when used."""
