diffpack fingerprint -q model
