"""A report as one HTML file that needs nothing beside it, and a fragment for notebooks."""
