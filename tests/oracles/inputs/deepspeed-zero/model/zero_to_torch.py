# DeepSpeed puts a script of its own here; only its name is kept.
