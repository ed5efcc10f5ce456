"""`python -m client COMMAND`: hands over to the instruments' command line."""

import sys

from measure.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
