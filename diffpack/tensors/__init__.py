"""What a tensor is: bits in words, their order, blocks, the reference of a change, identity, names."""
