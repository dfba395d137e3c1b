"""One peer a file, each with `encode(base, tuned, out)` and `decode(base, out, result)`: paths of safetensors files.

`out` is what would be shipped, a file or a folder; `result` is a safetensors file. Run as a process of its own:
`python -m benchmarks.size.peers PEER encode BASE TUNED OUT [OPTION ...]`. Options are passed on as text. A peer that
cannot do a pair raises; the last line of the error becomes the row's note. What it prints on stdout is a note too.
"""
