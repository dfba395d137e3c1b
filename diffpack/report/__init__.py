"""What diffs cost, for people: many diffs with their bases counted together, their budgets, and pages to read."""
