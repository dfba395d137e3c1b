"""`python -m diffpack_cli` is `diffpack`."""

from .start import main

if __name__ == "__main__":
    main()
