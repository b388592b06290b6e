"""Predict with trained runs: `python predict.py run=outputs/NAME data.predict=FOLDER out=x.csv`."""

import sys

from visionsweep.predict.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
