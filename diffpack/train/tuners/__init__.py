"""How a part of a model's weights is trained: sparse slots, gates of diff pruning, their hooks into training loops."""
