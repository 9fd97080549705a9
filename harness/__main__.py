"""`python -m harness` is `peft-regress`."""

import sys

from harness.cli import main

sys.exit(main())
