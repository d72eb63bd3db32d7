"""`python -m producers`: enqueue jobs from a shell."""

import sys

from producers.cli.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
