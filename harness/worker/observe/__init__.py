"""What is recorded of a loaded adapter: probes, load paths, accounting, structure."""
