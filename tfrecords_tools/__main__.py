"""`python -m tfrecords_tools …` is `tfrecords-tools …`."""

import sys

from tfrecords_tools.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
