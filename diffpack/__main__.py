"""`python -m diffpack` is the command `diffpack`: the one file of the library that knows its command line."""

from importlib import import_module

if __name__ == "__main__":
    import_module("diffpack_cli.main").main()
