"""`python -m megasbp`, which torchrun starts as `-m megasbp`."""

import sys

from megasbp.cli import main

if __name__ == "__main__":
    sys.exit(main())
