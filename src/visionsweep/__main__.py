"""`python -m visionsweep VERB`."""

import sys

from visionsweep.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
