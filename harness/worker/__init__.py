"""Runs inside a pinned environment: serves one request a line, one reply a line, each cell in a forked child.

Started as `PYTHON harness/worker --serve --log FILE` by the controller, or by hand with a plan
(`PYTHON harness/worker --help`). Standard library at this level; `cell.py` imports what the environment pins. Nothing
of ours is installed there, so what is tested is what users have. Syntax and library of Python 3.8.

The protocol, JSON lines on the stdin and stdout that the process was started with (`serve.py`):

    -> {"id": "hello", "kind": "hello", "device": "cpu", "preload": [...]}
    <- {"id": "hello", "outcome": "done", "facts": {...}, "duration_s": 11.8}
    -> {"id": "7", "kind": "replay", "scratch": "/tmp/x/7", "time_limit_s": 120.0, ...}
    <- {"id": "7", "outcome": "died", "signal": 11, "exit": null, "detail": "SIGSEGV", "duration_s": 0.4, ...}
    -> {"kind": "stop"}

* `hello` imports what is to be shared by all cells. Its outcome is `done`, or `error` with the traceback in `detail`.
* `create` and `replay` go to `cell.handle(request)`, several at once; replies come in the order in which they finish.
  `done`: handle() returned (the child's last act is SCRATCH/done.json, so an `os._exit(0)` in a library is no success);
  `died`: the process ended otherwise; `timeout`: it was killed at `time_limit_s`; `error`: handle() raised, which is a
  mistake of ours (traceback in SCRATCH/error.json).
* SCRATCH also gets `log.txt` (all that was printed, the middle left out where it is long) and `pid`.
* `stop`, or the end of stdin: the children are killed, the worker ends.

Libraries can't write to the protocol: it lives on private descriptors, while 0 is /dev/null and 1 and 2 are a log.
"""
