"""The library's version; the format's version stands in `diffpack.container.layout`."""

__version__ = "0.1.0"
