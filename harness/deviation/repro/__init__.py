"""A deviation as two short scripts that use only the libraries, for a maintainer upstream.

`folder` is the entry point and writes the folder. `case` collects what is shown, `run_scripts` runs the two scripts.
The rest is pure and turns a cell into Python text. `subject` says what a script loads; `loading`, `bases`, `quantised`,
`wrapping` and `training` write that as Python. `aspects` chooses what is shown for each finding, with lines from
`measures`, `operations` and `load_paths`. `scripts` makes both scripts; `pins` and `readme` make the other files.
"""
