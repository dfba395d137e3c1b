"""Base and diff -> the tuned model: applied, written out, verified, sealed."""
