"""What is stored of each tensor, and in which coding."""
