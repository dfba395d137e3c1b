"""The command line of diffpack: it reads arguments, calls the library, and prints what that found."""
