"""`python -m microformer`, the same as the `microformer` command."""

import sys

from microformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
