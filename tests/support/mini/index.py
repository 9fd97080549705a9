"""A registry on this machine: a simple index in JSON (PEP 691) with the days of upload (PEP 700), for uv and for us."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.mini import releases

_JSON = "application/vnd.pypi.simple.v1+json"


@dataclass
class Index:
    """What the registry has, and where it is asked.

    Attributes:
        asked: every path that was asked for.
        down: answers nothing but errors.
    """

    folder: Path
    files: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    down: bool = False
    address: str = ""

    def add(self, wheel: Path, day: str, **more: object) -> Path:
        """Offer a wheel; `more` are fields of its entry, such as `yanked`."""
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        package = wheel.name.partition("-")[0]
        entry: dict[str, object] = {
            "filename": wheel.name, "url": f"/files/{wheel.name}", "hashes": {"sha256": digest},
            "upload-time": f"{day}T12:00:00.000000Z", "requires-python": ">=3.8", "size": wheel.stat().st_size,
        }  # fmt: skip
        self.files.setdefault(package, []).append(entry | more)
        return wheel

    def library(self, release: str, day: str = "2020-01-01") -> Path:
        """Offer a release of the fake library."""
        return self.add(releases.wheel(self.folder, release), day)

    def peft(self, version: str, needs: str = "minipeft==1.0", day: str = "2024-01-01", **more: object) -> Path:
        """Offer a release of a PEFT that is nothing but its need of the fake library; importing it imports that."""
        return self.package("peft", version, "import minipeft\n", (needs,), day, **more)

    def package(
        self,
        name: str,
        version: str,
        code: str = "",
        needs: Sequence[str] = (),
        day: str = "2024-01-01",
        **more: object,
    ) -> Path:
        """Offer a release of a package of one module."""
        info = f"{name}-{version}.dist-info"
        tag = str(more.pop("tag", "py3-none-any"))
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {one}\n" for one in needs)
        contents = {
            f"{name}.py": code, f"{info}/METADATA": metadata,
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
            f"{info}/RECORD": "",
        }  # fmt: skip
        path = self.folder / f"{name}-{version}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for file, content in contents.items():
                archive.writestr(file, content)
        path.with_name(f"{path.name}.metadata").write_text(metadata)
        return self.add(path, day, **{"core-metadata": True, **more})

    def page(self, path: str) -> tuple[str, bytes] | None:
        """Content type and content of a path; None for what is not there."""
        kind, _, name = path.strip("/").partition("/")
        file = self.folder / name
        if kind == "files" and file.is_file():
            return "application/octet-stream", file.read_bytes()
        if kind == "simple" and name in self.files:
            page = {"meta": {"api-version": "1.1"}, "name": name, "files": self.files[name]}
            return _JSON, json.dumps(page).encode()
        return None


@contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """A registry, empty at first, at an address of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            index.asked.append(self.path)
            found = None if index.down else index.page(self.path)
            self.send_response(503 if index.down else 200 if found else 404)
            kind, content = found or ("text/plain", b"no")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index.address = f"http://127.0.0.1:{server.server_port}/simple"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
