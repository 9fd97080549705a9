"""Finds what changes a cell's verdict: which library (`blame`), which release or commit (`bisect`).

`blame` and `bisect` are the entry points; `work` is what they share. `delta` and `bisection` decide what to try next;
with `coupling`, `outcome` and `sentence` they are pure. `candidates` makes the environments, `trials` replays the cell
in each, and `journal` records the outcomes. `rows` lists releases or
commits, and `turning_point` bisects them.
"""
