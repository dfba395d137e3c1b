diffpack verify damaged.dpk --json
