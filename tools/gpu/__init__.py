"""The GPU checks: what fits into a few minutes on a machine with one GPU and no network."""
