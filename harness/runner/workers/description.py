"""Asks an environment what a base and a method are: one short process, which imports the libraries and answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from harness.core.errors import HarnessError
from harness.envs.environment import BuiltEnvironment
from harness.runner.workers import process
from harness.worker.files import parse_json
from harness.worker.process import signal_name

_LIMIT_S = 600


def describe(environment: BuiltEnvironment, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the libraries of an environment say; see `harness.worker.model.described`.

    Raises:
        HarnessError: the process dies, or does not answer.
    """
    command = [str(environment.python), str(process.WORKER), "--describe"]
    try:
        done = subprocess.run(
            command, input=json.dumps(request), env=process.environment(os.environ, environment.untouched),
            capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(environment, str(error)) from error
    try:
        answer = parse_json(done.stdout.rstrip().rpartition("\n")[2])
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        code = done.returncode
        ended = f"exit code {code}" if code >= 0 else signal_name(-code)
        raise _failed(environment, f"{ended}\n{done.stderr[-1500:]}")
    return answer


def _failed(environment: BuiltEnvironment, why: str) -> HarnessError:
    return HarnessError(
        f"environment {environment.name} does not describe the base: {why}", "an answer of its libraries",
        f"check it with `peft-regress env verify {environment.name}`",
    )  # fmt: skip
