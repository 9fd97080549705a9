"""Runs inside a pinned environment: one request a line, one reply a line, each cell in a forked child.

The controller starts it as `PYTHON harness/worker --serve --log FILE`; a user starts it with a plan
(`PYTHON harness/worker --help`). `serve/` uses the standard library only, `observe/library.py` imports what the
environment pins. None of our packages is installed there: the tests run what users have. Syntax and library of 3.8.

The protocol is JSON lines on stdin and stdout; `shared.py` has the shapes:

    -> {"id": "hello", "kind": "hello", "device": "cpu", "preload": [...]}
    <- {"id": "hello", "outcome": "done", "facts": {...}, "duration_s": 11.8}
    -> {"id": "7", "kind": "replay", "scratch": "/tmp/x/7", "time_limit_s": 120.0, ...}
    <- {"id": "7", "started": true}
    <- {"id": "7", "outcome": "died", "signal": 11, "exit": null, "detail": "SIGSEGV", "duration_s": 0.4, ...}
    -> {"kind": "stop"}

* `hello` imports what all cells share. Its outcome is `done`, or `error` with the traceback in `detail`.
* `create`, `replay`, `trace` and `identify` go to `cell.handle(request)`, several at once. Replies come in the order in
  which the requests finish. `done`: handle() returned, and the child wrote SCRATCH/done.json last, so an `os._exit(0)`
  in a library is no success. `died`: the process ended early. `timeout`: it had the machine for `time_limit_s`.
  `starved`: the machine did not let it run. `error`: handle() raised, which is a bug in the worker (traceback in
  SCRATCH/error.json).
* SCRATCH also gets `log.txt` (the output, without its middle if it is long).
* After `stop`, or the end of stdin, the children are killed and the worker ends.

Libraries cannot write to the protocol: it uses private descriptors; 0 is /dev/null, 1 and 2 are a log.
"""
