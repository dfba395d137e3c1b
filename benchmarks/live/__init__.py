"""Tasks in a running model, measured: switching, a thousand tasks, mixed batches, PEFT's adapters beside them."""
