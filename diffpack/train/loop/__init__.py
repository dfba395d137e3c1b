"""The training loop: stages, fitting, what a step costs in time and memory."""
