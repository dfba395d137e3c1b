"""The specification as code: a file's frame, manifest, chunks and codings. Knows no checkpoints and no torch."""
