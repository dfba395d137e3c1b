"""One family of tools a file: each writes the cases it can with the tool itself."""
