"""A matrix of fake libraries that needs no torch: what all of the tool is tested with, end to end.

`minipeft.py` is the fake library, `releases.py` says how its releases differ, `cell.py` does in a worker what
`harness/worker/observe/cell.py` does there, `declared/` holds bases and scenarios, `world.py` puts them to use.
"""
