"""The releases of the fake library: each is the text of `minipeft.py` with a few lines exchanged."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

import numpy

NAME = "minipeft"
SOURCE = Path(__file__).with_name("minipeft.py")
LIBRARIES = f"{Path(numpy.__file__).parents[1]}\n"
"""The text of a `.pth` file: NumPy and safetensors come from the environment that runs the tests."""

_LOAD = "    return Model(weights, LowRankConfig.from_dict(saved), dict(tensors))"

RELEASES: dict[str, dict[str, str]] = {
    "1.0": {},
    "1.1": {  # passes over what it does not know in a config
        "return cls(**saved)": 'return cls(**{k: v for k, v in saved.items() if k in ("r", "alpha", "targets")})',
    },
    "2.0": {},  # sound, to the bit
    "2.0.1": {"(x @ a.T) @ b.T * self.scaling": "x @ (a.T @ b.T * self.scaling)"},  # sound, but rounds otherwise
    "2.1": {"self.config.alpha / self.config.r": "self.config.alpha / self.config.r**0.5"},
    "2.2": {  # reads keys by a new name, and passes over what it does not find
        _LOAD: "    model = get_model(weights, LowRankConfig.from_dict(saved))\n"
        '    model.tensors.update({k: v for k, v in tensors.items() if not k.startswith("layer3.")})\n'
        "    return model"
    },
    "2.3": {  # another name in the config: old ones are read, new ones are written
        '"alpha": self.alpha': '"lora_alpha": self.alpha',
        "return cls(**saved)": 'return cls(**{k.removeprefix("lora_"): v for k, v in saved.items()})',
    },
    "2.4": {_LOAD: '    raise KeyError(f"unknown entry in {sorted(saved)}")'},
    "2.5": {_LOAD: f'    import warnings\n    warnings.warn("this adapter is of an old kind", stacklevel=1)\n{_LOAD}'},
    "2.6": {"return np.tanh(x)": "return np.tanh(x * 1.001)"},  # it is the base that moved
    "2.7": {"return {name: weight + self": f'raise RuntimeError("no merging")\n{" " * 8}return {{name: weight + self'},
    "2.8": {"import numpy as np": 'raise ImportError("libfrobnicate.so.3: no such file")\nimport numpy as np'},
    "2.9": {"np.array(tensor) for": 'np.array(tensor) * (name != "layer3.low_rank_B") for'},  # one door drops a tensor
    "2.10": {"model = load_adapter(weights, folder)": 'raise MemoryError("too sparing")'},  # and here it does not open
    "3.0": {  # an invention that no earlier release has
        "targets: list[str] | None = None) -> None:": "targets: list[str] | None = None, tilt: float = 1.0) -> None:\n"
        "        self.tilt = tilt",
        '"targets": self.targets}': '"targets": self.targets, "tilt": self.tilt}',
        "self.config.alpha / self.config.r": "self.config.alpha / self.config.r * self.config.tilt",
    },
}

_READ = "        return cls(**saved)"
_UNSTAMPED = '        stamp = saved.pop("peft_version", "0")\n'
for _stamped in ("4.0", "4.1", "4.2"):  # alike but for the stamp that each writes into its configs
    RELEASES[_stamped] = {
        '{"r": self.r, ': f'{{"peft_version": "{_stamped}", "r": self.r, ',
        _READ: _UNSTAMPED + _READ,
    }
RELEASES |= {
    "4.3": {_READ: _UNSTAMPED + _READ},
    "4.4": {  # takes what the newest wrote for something else, though it makes the same object of it
        _READ: _UNSTAMPED + _READ,
        _LOAD: '    weights = weights if saved.get("peft_version") != "4.2" else '
        "{k: v * (1 + 1e-8) for k, v in weights.items()}\n"
        '    saved.pop("peft_version", None)\n' + _LOAD,
    },
    "4.5": {  # warns of what the one in the middle wrote
        _READ: _UNSTAMPED + '        if stamp == "4.1":\n            import warnings\n'
        '            warnings.warn("4.1 is suspect", stacklevel=1)\n' + _READ
    },
    "4.6": {  # scales otherwise
        _READ: _UNSTAMPED + _READ,
        "self.config.alpha / self.config.r": "self.config.alpha / self.config.r**0.5",
    },
}

RELEASES |= {
    "5.0": {  # scales otherwise where another library is of its second release
        "self.config.alpha / self.config.r": "self.config.alpha / self.config.r ** "
        "(0.5 if __import__('trl').SECOND else 1)"
    },
    "5.1": {  # and where it is of its first release, loading fails
        "self.config.alpha / self.config.r": "self.config.alpha / self.config.r ** 0.5",
        _LOAD: f'    if not __import__("trl").SECOND:\n        raise KeyError("the first release")\n{_LOAD}',
    },
    "5.2": {  # two other libraries break it, each in a way of its own
        "self.config.alpha / self.config.r": "self.config.alpha / self.config.r ** "
        "(0.5 if __import__('trl').SECOND else 1)",
        _LOAD: f'    if __import__("accelerate").SECOND:\n        raise KeyError("the second release")\n{_LOAD}',
    },
}

FOR_ONE_TEST = frozenset(name for name in RELEASES if name[:2] in ("4.", "5.")) | {"2.9", "2.10"}
"""Releases that tests of one thing are about; of all others each is tried under every scenario."""


def text(release: str) -> str:
    """The source of a release."""
    found = SOURCE.read_text(encoding="utf-8")
    for old, new in RELEASES[release].items():
        assert old in found, (release, old)
        found = found.replace(old, new)
    return found


def files(release: str) -> dict[str, str]:
    """Everything that a release installs, by path within site-packages."""
    info = f"{NAME}-{release}.dist-info"
    return {
        f"{NAME}.py": text(release),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {release}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }


def interpreter(folder: Path, release: str) -> Path:
    """A program that is this Python with a release of the fake library."""
    library, program = folder / f"library-{release}", folder / f"python-{release}"
    alias = {f"peft-{release}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: peft\nVersion: {release}\n"}
    for name, content in (files(release) | alias).items():  # in reports it has a place among PEFT's releases
        path = library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return script(program, f'PYTHONPATH="{library}" exec "{sys.executable}" "$@"')


def script(program: Path, body: str) -> Path:
    """A shell script that can be run, there whole or not at all."""
    partial = program.with_name(f".{program.name}.partial")
    partial.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    partial.chmod(0o755)
    partial.replace(program)
    return program


def wheel(folder: Path, release: str) -> Path:
    """A release as a wheel."""
    contents = files(release) | {"mini_libraries.pth": LIBRARIES}
    record = f"{NAME}-{release}.dist-info/RECORD"
    lines = [f"{path},sha256={_digest(content)},{len(content.encode())}\n" for path, content in contents.items()]
    contents[record] = "".join(lines) + f"{record},,\n"
    path = folder / f"{NAME}-{release}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def _digest(content: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
