"""Models of transformers, made of a base and a diff, which share the base where nothing changes."""
