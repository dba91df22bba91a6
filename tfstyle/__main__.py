"""The command line, as ``python -m tfstyle``."""

import sys

from tfstyle.cli.parser import main

if __name__ == "__main__":
    sys.exit(main())
