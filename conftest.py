"""Makes scenario files collectable: `pytest matrices/scenarios --loader current -k loha`."""

pytest_plugins = ["harness.cli.pytest_plugin"]
