"""`python run.py --config=…` in a checkout is `mm-keras --config=…` of an installation."""

import sys

from mm_keras.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
