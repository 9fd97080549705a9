"""Looks for what turns a cell's verdict: which library (`blame`), which release, which commit (`bisect`).

`coupling`, `delta`, `dissect`, `deviation` and `sentence` are pure: they say what to try next and what follows of what
came back. `question`, `candidates`, `trials` and `journal` do it: environments are built, one cell is replayed in each.
"""
