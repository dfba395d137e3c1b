"""Files that appear whole, threads, things kept while there is room, names nobody trusts: no word of models."""
