"""How a part of a model's weights is trained: sparse slots, diff pruning's gates, and their hooks into training loops."""
