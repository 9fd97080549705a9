"""The worker's side of the protocol, spoken to by hand; and what its command line does to its process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.runner.workers.process import WORKER
from harness.worker.process import process_variables
from harness.worker.serve import numerics
from harness.worker.serve.work import HARNESS_ERROR, trim_log

HANDLER = Path(__file__).parents[1] / "support" / "fakes" / "handler.py"


class Server:
    """A worker with its pipes."""

    def __init__(self, log: Path, *options: str, environ: dict[str, str] | None = None) -> None:
        command = [sys.executable, str(WORKER), "--serve", "--handler", str(HANDLER), "--log", str(log), *options]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environ)

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def send(self, *requests: dict[str, Any]) -> None:
        self.write("".join(json.dumps(request) + "\n" for request in requests))

    def reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        content = {"started": True}
        while content.get("started"):
            content = json.loads(self.process.stdout.readline())
        assert isinstance(content, dict)
        return content

    def close(self) -> None:
        """Leaves nothing of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self) -> int:
        """Closes its stdin; returns its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A worker; killed after the test."""
    started = Server(tmp_path / "worker.log")
    yield started
    started.close()


def cell(id: str, folder: Path, do: str = "nothing", **more: Any) -> dict[str, Any]:
    """A request of the fake handler."""
    return {"id": id, "kind": "replay", "scratch": str(folder / id), "time_limit_s": 30.0, "do": do, **more}


def test_hello_tells_the_facts_and_prints_go_to_the_log(server: Server, tmp_path: Path) -> None:
    server.send({"id": "h", "kind": "hello", "preload": []})
    reply = server.reply()
    assert (reply["id"], reply["outcome"]) == ("h", "done")
    assert reply["facts"]["pid"] != server.process.pid, "it has a keeper"
    assert reply["facts"]["numerics"]["environ"]["MKL_CBWR"] == "COMPATIBLE"
    assert reply["duration_s"] >= 0
    assert server.end() == 0
    assert (tmp_path / "worker.log").read_text() == "printed at import\n"


def test_hello_that_fails_is_a_reply(server: Server) -> None:
    server.send({"id": "h", "kind": "hello", "preload": ["raise"]})
    assert "ImportError: no module named frobnicate" in server.reply()["detail"]
    server.send({"id": "h2", "kind": "hello"})
    assert server.reply()["outcome"] == "done"


def test_a_request_in_pieces_and_many_at_once(server: Server, tmp_path: Path) -> None:
    line = json.dumps(cell("one", tmp_path)) + "\n"
    server.write(line[:10])
    server.write(line[10:])
    assert server.reply()["id"] == "one"
    server.send(*(cell(str(n), tmp_path) for n in range(20)))
    assert {server.reply()["id"] for _ in range(20)} == {str(n) for n in range(20)}


def test_a_reply_says_how_a_cell_ended(server: Server, tmp_path: Path) -> None:
    server.send(cell("1", tmp_path))
    done = server.reply()
    assert (done["outcome"], done["signal"], done["exit"], done["detail"]) == ("done", None, 0, "")
    assert done["max_rss_mb"] > 1
    server.send(cell("2", tmp_path, "sigsegv"))
    died = server.reply()
    assert (died["outcome"], died["signal"], died["exit"], died["detail"]) == ("died", 11, None, "SIGSEGV")
    server.send(cell("3", tmp_path, "raise"))
    error = server.reply()
    assert (error["outcome"], error["exit"]) == ("error", HARNESS_ERROR)
    assert json.loads((tmp_path / "3" / "error.json").read_text())["type"] == "ValueError"


def test_what_an_earlier_run_left_is_no_success(server: Server, tmp_path: Path) -> None:
    server.send(cell("1", tmp_path))
    assert server.reply()["outcome"] == "done"
    server.send(cell("1", tmp_path, "exit"))
    assert server.reply()["outcome"] == "died"


BAD = [
    ("no JSON\n", "not a JSON object"),
    ("[1]\n", "not a JSON object"),
    ('{"kind": "dance", "id": "1"}\n', "kind 'dance'"),
    ('{"kind": "replay", "id": "1"}\n', "`scratch`"),
    ('{"kind": "replay", "id": "1", "scratch": "/dev/null/x"}\n', "NotADirectoryError"),
]


@pytest.mark.parametrize(("line", "detail"), BAD)
def test_a_bad_request_is_answered_and_the_next_is_served(
    server: Server, tmp_path: Path, line: str, detail: str
) -> None:
    server.write(line)
    reply = server.reply()
    assert reply["outcome"] == "error"
    assert detail in reply["detail"]
    server.send(cell("next", tmp_path))
    assert server.reply()["outcome"] == "done"


@pytest.mark.parametrize("how", ["stop", "end of stdin"])
def test_the_end_takes_the_cells_along(server: Server, tmp_path: Path, how: str) -> None:
    server.send(cell("1", tmp_path, "stubborn"))
    pids = tmp_path / "1" / "pids"
    while not pids.exists():
        pass
    if how == "stop":
        server.send({"kind": "stop"})
        assert server.process.wait(5) == 0
    else:
        assert server.end() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.read_text().split()[0]), 0)


def test_ctrl_c_is_the_controllers_business(server: Server, tmp_path: Path) -> None:
    server.send({"id": "h", "kind": "hello"})
    server.reply()
    server.process.send_signal(2)
    server.send(cell("1", tmp_path))
    assert server.reply()["outcome"] == "done"


def test_a_worker_started_by_hand_sets_its_environment_itself(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "8"}
    server = Server(tmp_path / "log", "--hash-seed", "3", environ=environ)
    server.send({"id": "h", "kind": "hello"})
    facts = server.reply()["facts"]["numerics"]
    assert facts["hash_seed"] == "3"
    assert facts["environ"]["OMP_NUM_THREADS"] == "1"
    assert facts["environ"]["HF_HUB_OFFLINE"] == "1"
    assert server.end() == 0
    server.close()


def test_help_has_examples() -> None:
    shown = subprocess.run([sys.executable, str(WORKER), "--help"], capture_output=True, text=True, check=True).stdout
    assert "examples:" in shown
    assert "--plan plan.json --out results" in shown


def test_nothing_is_missing_once_it_is_set() -> None:
    environ = {"HOME": "/root"}
    assert numerics.missing(environ) == process_variables(environ)
    assert numerics.missing(environ | process_variables(environ)) == {}
    assert numerics.missing(environ | process_variables(environ), "5") == {"PYTHONHASHSEED": "5"}


class FakeTorch(SimpleNamespace):
    """Takes note of what is set."""

    def __init__(self) -> None:
        super().__init__(utils=SimpleNamespace(), backends=SimpleNamespace(), calls=[])

    def __getattr__(self, name: str) -> Any:
        if name == "set_num_interop_threads":
            raise_error = RuntimeError("cannot set number of interop threads after parallel work has started")
            return lambda _n: (_ for _ in ()).throw(raise_error)
        return lambda *args, **options: self.calls.append((name, args, options)) or 1


def test_after_import_bears_with_an_old_torch() -> None:
    torch = FakeTorch()
    facts = numerics.after_import(torch)
    assert ("set_num_threads", (1,), {}) in torch.calls
    assert ("use_deterministic_algorithms", (True,), {"warn_only": True}) in torch.calls
    assert facts["cpu_capability"] is None
    assert facts["fills_uninitialized_memory"] is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_makes_its_own_pool_of_threads_first() -> None:
    torch = FakeTorch()
    numerics.after_import(torch)
    torch.calls.clear()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if torch.calls == [("set_num_threads", (1,), {})] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert torch.calls == []


def test_trim_log_keeps_head_and_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n" + b"x" * (2 << 20) + b"\nlast")
    with log.open("r+b", buffering=0) as file:
        trim_log(file.fileno(), 3 << 20)
        assert log.stat().st_size > 2 << 20
        trim_log(file.fileno(), 0)
    content = log.read_bytes()
    assert content.startswith(b"first\n")
    assert content.endswith(b"\nlast")
    assert len(content) < 200 << 10
