"""From the records to write to the streams of chunks."""
