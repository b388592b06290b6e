"""Send runs to MLflow that it does not have yet: `python sync.py outputs/NAME multirun/STUDY --verify`."""

import sys

from visionsweep.tracking.sync import main

if __name__ == "__main__":
    sys.exit(main())
