"""Checks cells on other machines (`--cluster`). See docs/clusters.md.

The controller plans the cells and sends them to nodes in batches. A batch describes the environments, which the node
builds, and names each file by its SHA-256. The node asks for the files that it does not have. It
checks the batch in an ordinary session and returns the cells.

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
