"""The commands of `peft-regress`, one module a subject; each takes parsed arguments and returns an exit code."""
