"""A worker whose replies can't be trusted: what it does is its argument."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

BAD: dict[str, dict[str, Any]] = {
    "a list": {"outcome": ["done"]},
    "NaN": {"duration_s": float("nan")},
    "words": {"duration_s": "long"},
    "a number": {"detail": 7},
    "digits": {"duration_s": 10**400},
}
what = sys.argv[1]
for line in sys.stdin:
    request = json.loads(line)
    reply = {"id": request["id"], "outcome": "done", "facts": {}, "duration_s": 0.0}
    if request["kind"] == "hello" and what == "die":
        sys.exit("can't start")
    if request.get("do") == "misbehave" or (request["kind"] == "hello" and what == "hello"):
        if what == "silent":
            continue
        if what == "unknown-id":
            reply["id"] = "somebody else"
        if what == "no-outcome":
            del reply["outcome"]
        reply |= BAD.get(what, {})
        if what == "deep":
            print("[" * 100_000 + "]" * 100_000, flush=True)
            continue
        if what == "close":
            os.close(1)
            sys.stdin.read()
        print("Loading checkpoint shards\x1b[2K" if what in ("text", "hello") else json.dumps(reply), flush=True)
        continue
    print(json.dumps(reply), flush=True)
