"""A deviation as two short scripts that use the libraries alone: what a maintainer upstream is given (pure).

`subject` says what a script loads; `loading`, `bases`, `quantised` and `wrapping` how that reads as Python; `aspects`
what is shown of it, by the finding that the cell is red for, with lines of `measures`, `operations` and `doorways`;
`scripts` puts the two files together, `pins` and `readme` make what lies beside them.
Files are written, and the scripts run, by `harness.cli.repro`.
"""
