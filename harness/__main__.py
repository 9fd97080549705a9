"""`python -m harness` is `peft-regress`."""

import sys

from harness.cli.main import main

sys.exit(main())
