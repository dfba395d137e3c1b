diffpack invert exact.dpk -o undo.dpk
