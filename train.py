"""One run or, with `--multirun`, a sweep: `python train.py loss=focal optim=adamp`."""

import sys

from visionsweep.cli.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
