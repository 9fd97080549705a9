"""The seam to the pinned environments: worker processes, their pools, and how pools share the machine."""
