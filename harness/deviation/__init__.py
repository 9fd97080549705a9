"""Follow-up of one deviation: where it starts, which library causes it, a folder that shows it, and its acceptance.

`where` (with `where_trace` and `where_text`) finds the layer, `search` the library, release and commit, `repro` writes
the folder, `triage` and `accept` decide about it. `one_cell` finds the cell that all of them start from.
"""
