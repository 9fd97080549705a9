"""The workflows: linted, and every command in them run, in a world of fake libraries, a fake GPU and a fake `gh`."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.mini import releases
from tests.support.mini.world import HANDLER, REPOSITORY, World

WORKFLOWS = REPOSITORY / ".github" / "workflows"
FILES = sorted(WORKFLOWS.glob("*.yml"))
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def workflow(name: str) -> dict[Any, Any]:
    content = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def commands(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Job and step name → each step that runs a command."""
    jobs: Mapping[str, Any] = workflow(name)["jobs"]
    return {(job, step["name"]): step for job, said in jobs.items() for step in said["steps"] if "run" in step}


# -- linted ------------------------------------------------------------------------------------------------------------


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    command = ["zizmor", "--offline", "--quiet", *map(str, files)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)


def test_there_is_nothing_to_say_about_them() -> None:
    said = lint(*FILES)
    assert said.returncode == 0, said.stdout + said.stderr


BAD = """
on: pull_request_target
jobs:
  a:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: echo ${{ github.event.pull_request.title }}
"""


def test_the_linter_finds_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / ".github" / "workflows" / "bad.yml"
    file.parent.mkdir(parents=True)
    file.write_text(BAD)
    said = lint(file)
    assert said.returncode != 0
    assert "template-injection" in said.stdout


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is a program of its own, and not on the PATH")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_actionlint_has_nothing_to_say_either(file: Path) -> None:
    said = subprocess.run(["actionlint", str(file)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_they_may(file: Path) -> None:
    """Only the job that opens the issue may write, no secret is named, and actions are pinned to a commit."""
    text = file.read_text(encoding="utf-8")
    content = workflow(file.stem)
    assert content["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    assert "pull_request_target" not in text
    writing = [name for name, job in content["jobs"].items() if "write" in str(job.get("permissions"))]
    assert writing == (["issue"] if file.stem == "nightly-gpu" else [])
    used = [step["uses"] for job in content["jobs"].values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z/-]+@[0-9a-f]{40}", name) for name in used)


def test_no_fork_runs_on_the_machine_with_the_gpu() -> None:
    content = workflow("nightly-gpu")
    assert set(content[True]) == {"schedule", "workflow_dispatch"}, "YAML reads `on` as true"
    assert all("!github.event.repository.fork" in job["if"] for job in content["jobs"].values())
    own = [name for name, job in content["jobs"].items() if "self-hosted" in job["runs-on"]]
    assert own == ["replay"]
    assert "self-hosted" not in str(workflow("pr"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_from_outside_is_put_into_a_command(file: Path) -> None:
    assert not [name for name, step in commands(file.stem).items() if "${{" in step["run"]]


def test_the_pages_say_the_same_commands() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    said = " ".join(" ".join(page.read_text(encoding="utf-8").split()) for page in pages)
    for command in ("pip install -e .", "peft-regress check --creator v061 --creator v0140 --loader current"):
        assert command in said
        assert any(command in step["run"] for step in commands("pr").values())


def test_the_nightly_tests_are_jobs_of_tox() -> None:
    """Their commands can't run inside a test: `run.py` starts tox with the environment of that name."""
    jobs = configparser.ConfigParser()
    jobs.read(REPOSITORY / "tox.ini")
    ran = [step["run"].split() for step in commands("nightly-tests").values()]
    assert ran == [["python", "run.py", "tests-nightly"], ["python", "run.py", "site"]]
    assert all(f"testenv:{words[-1]}" in jobs for words in ran)


# -- run ---------------------------------------------------------------------------------------------------------------

GH = """#!/bin/sh
echo "$@" >> "$GH_LOG"
for word in "$@"; do case "$last" in --body-file) cp "$word" "$GH_LOG.body";; esac; last=$word; done
case "$1 $2" in "issue list") echo "$GH_OPEN";; esac
"""


@dataclass
class Runner:
    """A runner with a checkout: runs a job's commands as GitHub does, the first that fails ends it."""

    world: World
    environ: dict[str, str]
    ran: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.world.root / "checkout"

    @property
    def summary(self) -> str:
        return (self.world.root / "summary").read_text()

    def job(self, name: str, job: str, conditions: Mapping[str, bool], expressions: Mapping[str, str]) -> int:
        """The exit code of a job's commands.

        Args:
            conditions: what each `if` of its steps comes to.
            expressions: what each expression in their variables comes to; outputs of steps are known.
        """
        failed = 0
        for step in workflow(name)["jobs"][job]["steps"]:
            condition = step.get("if", "")
            if "run" not in step or not (conditions[condition] if condition else not failed):
                continue
            if failed and "cancelled()" not in condition:
                continue
            failed = self.step(step, expressions) or failed
        return failed

    def step(self, step: Mapping[str, Any], expressions: Mapping[str, str]) -> int:
        self.ran.append(step["name"])
        variables = {key: self.evaluated(str(value), expressions) for key, value in step.get("env", {}).items()}
        output = self.world.root / "output"
        output.write_text("")
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        environ = {**self.environ, **variables, "GITHUB_OUTPUT": str(output)}
        done = subprocess.run(
            command, cwd=self.checkout, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
        print(f"--- {step['name']}: {done.returncode}\n{done.stdout}{done.stderr}")
        for line in output.read_text().splitlines():
            key, _, value = line.partition("=")
            self.outputs[f"steps.{step['id']}.outputs.{key}"] = value
        return done.returncode

    def evaluated(self, text: str, expressions: Mapping[str, str]) -> str:
        """The text with its expressions put in; of alternatives the first that is something."""
        known = {**expressions, **self.outputs}

        def value(match: re.Match[str]) -> str:
            return next((known[part.strip()] for part in match[1].split("||") if known.get(part.strip())), "")

        return re.sub(r"\$\{\{(.+?)\}\}", value, text)


@pytest.fixture
def runner(empty: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A checkout with environments v061, v0140 and current of fake libraries, and fixtures of the first two."""
    for key in [key for key in os.environ if key.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(key)
    for release in ("1.0", "1.1", "2.0", "2.1"):
        releases.wheel(tmp_path / "wheels", release)
    (tmp_path / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {(tmp_path / 'wheels').as_uri()}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "cache"))
    for name, release in (("v061", "1.0"), ("v0140", "1.1"), ("current", "2.0"), ("broken", "2.1")):
        declared = f'why = "x"\npython = "{PYTHON}"\n[pins]\nminipeft = "{release}"\n'
        (empty.matrices / "envs" / f"{name}.toml").write_text(declared)
        assert empty.run("env", "lock", name).code == 0
    for name in ("v061", "v0140"):
        assert empty.run("create", name).code == 0
    for name in (".github", "tools"):
        shutil.copytree(REPOSITORY / name, tmp_path / "checkout" / name)
    tools = tmp_path / "tools"
    tools.mkdir()
    ours = f"""#!/bin/sh
echo "peft-regress $*" >> {tmp_path}/commands
first="$1"; [ "$1" = fixtures ] && first="$1 $2" && shift
shift
exec {sys.executable} -m harness $first --matrices={empty.matrices} --fixtures={empty.fixtures} \\
  --worker-handler={HANDLER} "$@"
"""
    noted = f'#!/bin/sh\necho "$(basename $0) $*" >> {tmp_path}/commands\n'
    for name, text in (("peft-regress", ours), ("gh", GH), ("pip", noted), ("nvidia-smi", noted)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environ = {
        **empty.environ(), "PATH": f"{tools}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GH_LOG": str(tmp_path / "gh.log"), "GH_OPEN": "", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "0",
        "MINI_GPU": json.dumps({"usable": True, "name": "NVIDIA H200", "capability": "9.0"}),
    }  # fmt: skip
    return Runner(empty, environ)


NOT_CANCELLED = "${{ !cancelled() }}"
KNOWS = "${{ !cancelled() && steps.check.outputs.code }}"
OF_HUB = "${{ inputs.hub && !cancelled() }}"
NIGHT = {NOT_CANCELLED: True, KNOWS: True, OF_HUB: False}
GITHUB = {
    "github.token": "a token", "github.repository": "me/peft-regress", "github.server_url": "https://example.org",
    "github.run_id": "7",
}  # fmt: skip


def regress(world: World) -> None:
    """From now on `current` is a release with a break."""
    for name in ("envs/current.toml", "envs/locks/current.txt"):
        (world.matrices / name).write_text((world.matrices / name.replace("current", "broken")).read_text())


@pytest.mark.slow
def test_three_nights(runner: Runner) -> None:
    """A green one, a red one that is compared with it, and an issue about it that is opened once."""
    assert runner.job("nightly-gpu", "replay", NIGHT, GITHUB) == 0
    assert runner.outputs["steps.check.outputs.code"] == "0"
    said = json.loads((runner.checkout / "reports" / "last" / "report.json").read_text())
    assert {cell["device"] for cell in said["cells"]} == {"cuda"}
    assert {cell["creator"] for cell in said["cells"]} == {"v061", "v0140"}
    assert "CLEAN" in runner.summary
    regress(runner.world)
    for number in ("", "12"):
        runner.environ["GH_OPEN"] = number
        for name in ("tonight", "steps"):  # a checkout is fresh, but for what the cache restores
            shutil.rmtree(runner.checkout / "reports" / name)
        assert runner.job("nightly-gpu", "replay", NIGHT, GITHUB) == 1
        assert runner.outputs["steps.check.outputs.code"] == "1"
        assert f"--baseline {runner.checkout}/reports/last" in (runner.world.root / "commands").read_text()
        shutil.copytree(runner.checkout / "reports" / "last", runner.checkout / "nightly" / "found", dirs_exist_ok=True)
        assert runner.job("nightly-gpu", "issue", {}, GITHUB) == 0
    log = (runner.world.root / "gh.log").read_text()
    assert log.count("issue create") == 1
    assert "issue edit 12" in log
    assert "https://example.org/me/peft-regress/actions/runs/7" in log
    assert "two-layers" in (runner.world.root / "gh.log.body").read_text()
    left = {step for _, step in commands("nightly-gpu")} - set(runner.ran)
    assert left == {"Real models of the hub"}, "every other command was run; this one below"


def test_the_night_of_the_real_models(runner: Runner) -> None:
    """The command as it stands, with the models of the mini world in the place of the hub's."""
    step = commands("nightly-gpu")["replay", "Real models of the hub"]
    base = runner.world.matrices / "bases" / "mlp.toml"
    assert runner.step({**step, "run": step["run"].replace("--family hub", "--family plain")}, {}) == 0, base
    (report,) = (runner.checkout / "reports" / "hub").glob("*/report.json")
    assert {cell["device"] for cell in json.loads(report.read_text())["cells"]} == {"cuda"}


def test_a_night_without_a_gpu_is_red_and_opens_no_issue(runner: Runner) -> None:
    runner.environ["MINI_GPU"] = "{}"
    assert runner.job("nightly-gpu", "replay", NIGHT, GITHUB) == 2
    assert runner.outputs["steps.check.outputs.code"] == "2"
    assert workflow("nightly-gpu")["jobs"]["issue"]["if"].count("code == '1'") == 1


def test_a_long_report_is_cut_between_characters(runner: Runner) -> None:
    report = runner.world.root / "report.md"
    report.write_text("ß" * 40_000)
    command = [str(REPOSITORY / ".github" / "scripts" / "issue.sh"), str(report), "https://example.org/7"]
    subprocess.run(command, env=runner.environ, check=True, capture_output=True)
    body = (runner.world.root / "gh.log.body").read_text(encoding="utf-8")
    assert len(body.encode()) < 65_536
    assert "cut here" in body


PULL = {NOT_CANCELLED: True, "${{ inputs.against }}": False}


@pytest.mark.slow
def test_a_pull_request_here_and_one_elsewhere(runner: Runner) -> None:
    assert runner.job("pr", "check", PULL, GITHUB) == 0
    assert "CLEAN" in runner.summary
    shutil.rmtree(runner.checkout / "reports")
    by_hand = {**PULL, "${{ inputs.against }}": True}
    given = {**GITHUB, "inputs.against": "broken", "inputs.baseline": "current"}
    assert runner.job("pr", "check", by_hand, given) == 1
    assert "two-layers" in runner.summary
    assert {step for _, step in commands("pr")} == set(runner.ran)


@pytest.mark.parametrize("loader", ["$(touch hacked)", "x; touch hacked", "--help"])
def test_a_loader_from_outside_is_a_word_and_nothing_else(runner: Runner, loader: str) -> None:
    (runner.checkout / "reports" / "released" / "run").mkdir(parents=True)
    step = commands("pr")["check", "The change, held against the baseline"]
    runner.step(step, {"inputs.against": loader, "inputs.baseline": loader})
    assert runner.outputs["steps.checked.outputs.code"] != "0"
    assert not list(runner.world.root.rglob("hacked"))
