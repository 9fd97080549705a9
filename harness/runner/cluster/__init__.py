"""Checks cells on other machines (`--cluster`). See docs/clusters.md.

The controller plans, judges nothing and computes nothing: it sends batches of cells to nodes. A batch has all that its
cells need: descriptions of the environments, which the node builds, and the SHA-256 of each file, which the node asks
for if it does not have it. A node checks a batch in an ordinary session, and returns the cells.

| Module | Where it runs | Does |
|---|---|---|
| `batch` | both | what is sent, and what is returned |
| `packing` | controller | makes a batch of planned cells |
| `waiting` | controller | which cells the next batch has, and what follows from the death of a node |
| `session` | controller | sends batches to nodes, with the interface of a local session |
| `nodes` | controller | which nodes fit: the same code, Python and kind of machine |
| `engine` | controller | the only module that imports Dask |
| `contents` | node | files by SHA-256, in a cache of bounded size |
| `node` | node | checks a batch |
"""
