diffpack diff exact.dpk lossy.dpk --json
