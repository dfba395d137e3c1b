"""A byte budget or a target error -> the step that lands on it."""
