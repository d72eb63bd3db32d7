"""`python -m producers`: enqueue jobs from a shell, or print the contract."""

import sys

from producers.cli.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
