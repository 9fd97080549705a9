"""Finds what changes a cell's verdict: which library (`blame`), which release or commit (`bisect`).

`blame` and `bisect` are the entry points; `work` is what they share. Pure: `hunt` searches one cause after the other,
`delta` and `bisection` decide what to try next, `outcome` recognises the deviation, `conclusion` and `sentence` say
what the trials show. `candidates` makes the environments, `trials` replays the cell in each, and `journal` records what
they showed. `pin` finds the versions that help. `rows` lists releases or commits, and `turning_point` bisects them.
"""
