"""`python -m diffpack` is the command `diffpack`: the one file of the library that knows its command line."""

from diffpack_cli.start import main

if __name__ == "__main__":
    main()
