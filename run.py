"""`python run.py --config=…` trains, evaluates and exports, as `mm-keras train …` of an installation does."""

import sys

from mm_keras.cli.run_py import main

if __name__ == "__main__":
    sys.exit(main())
