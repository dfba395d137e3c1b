"""`python -m diffpack_cli` is `diffpack`."""

from diffpack_cli.main import main

if __name__ == "__main__":
    main()
