"""``python -m qregress`` is ``qregress``."""

import sys

from qregress.cli import main

if __name__ == "__main__":
    sys.exit(main())
