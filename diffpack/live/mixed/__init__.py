"""One forward pass over rows of several tasks: the base's products once, each task's changes for its rows."""
