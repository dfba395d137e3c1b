"""Two checkpoints side by side: which tensors pair up, and what differs."""
