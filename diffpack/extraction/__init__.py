"""Two checkpoints -> a diff: the scan of both, the choice of what is stored and how, coding, and the file."""
