"""`python -m aurelis_cli` is the command `aurelis-cache`."""

from aurelis_cli.main import main

if __name__ == "__main__":
    main()
