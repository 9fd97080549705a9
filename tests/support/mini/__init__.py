"""A matrix of fake libraries that needs no torch: what all of the tool is tested with, end to end.

`minipeft.py` is the fake library, and `releases.py` says how its releases differ. `cell.py` plugs it into the worker's
own steps. `declared/` holds bases and scenarios, `world.py` makes fixtures and runs commands.
"""
