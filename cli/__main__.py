"""`python -m diffpack_cli` is `diffpack`."""

from .main import main

if __name__ == "__main__":
    main()
