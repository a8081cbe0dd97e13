"""`python -m opennmt_sd` is the command `opennmt_sd`."""

import sys

from opennmt_sd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
