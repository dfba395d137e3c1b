"""What is in the diffs and not in their manifests: where tasks meet, and how far they move the entries."""
