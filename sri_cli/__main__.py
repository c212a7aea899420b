"""`python -m sri_cli`, the form that torchrun starts."""

from sri_cli.cli.main import main

if __name__ == "__main__":
    main()
