"""Send runs to MLflow that it does not have yet: `python sync.py outputs/NAME multirun/STUDY`."""

import sys

from visionsweep.tracking.sync import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
