"""Which entries a SparseTuner trains. One selection a file; each gives sorted flat positions by parameter name."""
