"""What diffpack is measured with. Scripts, not an API; nothing here is installed."""
