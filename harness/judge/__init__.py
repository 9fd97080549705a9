"""Golden and replay in, verdict out; run and run in, change out. Pure: no files, no processes."""
