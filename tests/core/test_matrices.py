"""The matrix itself: what every base and scenario must say; and what happens where a file is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

from harness.core import versions as requirements
from harness.core.errors import UsageError
from harness.core.matrix import Matrix, digest, resolve, unstored, unsupported
from harness.core.scenario import Adapter

FOLDER = Path(__file__).parents[2] / "matrices"
ALL = Matrix(FOLDER).scenarios(hub=True)
V061 = {"peft": "0.6.1", "transformers": "4.35.2"}


# --- the matrix as it is


def test_the_families_are_those_that_adapters_in_the_wild_have() -> None:
    families = {declared.family for declared in ALL}
    assert len(ALL) >= 65
    assert families >= {"lora", "lora-bias", "lora-conv", "lora-modules-to-save", "lora-tied"}
    assert families >= {"ia3", "loha", "lokr", "adalora", "prompt-learning", "adaption-prompt"}


def test_the_oldest_creator_has_nearly_all_of_its_methods() -> None:
    # what 0.6.1 itself cannot compute, of the methods that it has; everything else is a fixture
    theirs = {"lora", "lora-bias", "lora-conv", "lora-modules-to-save", "lora-tied", "ia3", "loha", "lokr", "adalora"}
    theirs |= {"prompt-learning", "adaption-prompt"}
    assert [d.name for d in ALL if d.family in theirs and unsupported(d, V061)] == ["lora-conv2d-grouped"]


def test_a_target_in_the_plain_models_is_the_end_of_another_name() -> None:
    names = [module.name for d in ALL if d.base_name == "mlp" for module in d.base.modules or []]
    assert {"lin1", "sublin1"} <= set(names)


# --- resolving by version


BASE = """
why = "b"
inputs = {{ input = {{ kind = "uniform", shape = [2, 3] }} }}
{extra}
[transformers]
model = "M"
config = "C"
args = {{ hidden = 8, old = true }}
"""
SCENARIO = """
[[scenario]]
name = "s"
why = "w"
base = "b"
{extra}
[scenario.adapter]
config = "LoraConfig"
args = {{ r = 4, lora_alpha = 6 }}
{when}
"""


def make(folder: Path, extra: str = "", when: str = "", base_extra: str = "", base: str | None = None) -> Matrix:
    """A matrix of one base and one scenario."""
    for name, text in {
        "bases/b.toml": base if base is not None else BASE.format(extra=base_extra),
        "scenarios/s.toml": SCENARIO.format(extra=extra, when=when),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Matrix(folder)


WHEN = """
[[scenario.when]]
if = "peft<0.5"
args = { r = 2 }
drop = ["lora_alpha"]

[[scenario.when]]
if = "peft>=0.7"
config = "NewConfig"
expects = { keys = { "a" = 1 } }
skip = { merged = "cannot" }

[[scenario.when]]
if = "peft>=0.7, transformers>=5"
args = { r = 9 }
"""


@pytest.mark.parametrize(
    ("versions", "config", "args", "expects"),
    [
        ({"peft": "0.4.0"}, "LoraConfig", {"r": 2}, None),
        ({"peft": "0.5.0.dev0"}, "LoraConfig", {"r": 4, "lora_alpha": 6}, None),
        ({"peft": "0.6.1"}, "LoraConfig", {"r": 4, "lora_alpha": 6}, None),
        ({"peft": "0.7.1", "transformers": "4.35.2"}, "NewConfig", {"r": 4, "lora_alpha": 6}, {"a": 1}),
        ({"peft": "0.7.1"}, "NewConfig", {"r": 4, "lora_alpha": 6}, {"a": 1}),
        ({"peft": "0.22.0.dev0", "transformers": "5.0.0rc1"}, "NewConfig", {"r": 9, "lora_alpha": 6}, {"a": 1}),
        ({}, "LoraConfig", {"r": 4, "lora_alpha": 6}, None),
    ],
)
def test_when_is_applied_in_order(
    tmp_path: Path, versions: dict[str, str], config: str, args: dict[str, Any], expects: dict[str, int] | None
) -> None:
    (declared,) = make(tmp_path, when=WHEN).scenarios()
    resolved = resolve(declared, versions)
    assert resolved["adapter"] == {"config": config, "args": args, "name": "default"}
    assert resolved["expects"] == expects
    assert resolved["skip"] == ({"merged": "cannot"} if expects else {})


def test_a_base_that_is_saved_in_a_narrow_type(tmp_path: Path) -> None:
    (declared,) = make(tmp_path, base_extra='dtype = "bfloat16"').scenarios()
    assert resolve(declared, {})["base"]["saved_dtype"] == "bfloat16"
    (plain,) = make(tmp_path).scenarios()
    assert "saved_dtype" not in resolve(plain, {})["base"], "the digests of stored scenarios would change"


def test_a_base_with_a_tokenizer(tmp_path: Path) -> None:
    (declared,) = make(tmp_path, base_extra='tokenizer = "characters"').scenarios()
    assert resolve(declared, {})["base"]["tokenizer"] == "characters"
    (plain,) = make(tmp_path).scenarios()
    assert "tokenizer" not in resolve(plain, {})["base"], "the digests of stored scenarios would change"


def test_a_quantised_base_has_no_type_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`dtype` is for a base that is made"):
        make(tmp_path, base_extra='dtype = "bfloat16"\nquantize = { bits = 8 }').scenarios()


def test_rare_keys_are_only_in_the_scenarios_that_set_them(tmp_path: Path) -> None:
    (plain,) = make(tmp_path / "plain", extra='expects = { keys = { "a" = 1 } }').scenarios()
    assert not {"expects_shapes", "beside"} & set(resolve(plain, V061))
    assert "convert" not in resolve(plain, V061)["adapter"]
    assert "resize_to" not in resolve(plain, V061)["base"]

    extra = 'expects = { keys = { "a" = 1 }, shapes = { "a" = [2, 3] } }\nbeside = { config = "B", args = { r = 2 } }'
    (rare,) = make(tmp_path / "rare", extra=extra, base_extra="resize_to = 9").scenarios()
    resolved = resolve(rare, V061)
    assert resolved["expects_shapes"] == {"a": [2, 3]}
    assert resolved["beside"] == {"config": "B", "args": {"r": 2}, "name": "beside"}
    assert resolved["base"]["resize_to"] == 9


def test_converted_on_saving(tmp_path: Path) -> None:
    make(tmp_path)
    text = replaced('config = "LoraConfig"', 'config = "LoraConfig"\nconvert = true')
    (tmp_path / "scenarios" / "s.toml").write_text(text, encoding="utf-8")
    (declared,) = Matrix(tmp_path).scenarios()
    assert resolve(declared, V061)["adapter"]["convert"] is True


def test_a_base_differs_by_version_too(tmp_path: Path) -> None:
    when = '[[when]]\nif = "transformers>=5"\nargs = { hidden = 16 }\ndrop = ["old"]\nmodel = "N"\n'
    when += "load_with = { how = 1 }\n"
    (declared,) = make(tmp_path, base=BASE.format(extra="") + when).scenarios()
    old, new = (resolve(declared, {"transformers": version})["base"] for version in ("4.35.2", "5.0.0"))
    assert (old["model"], old["args"]) == ("M", {"hidden": 8, "old": True})
    assert (new["model"], new["args"]) == ("N", {"hidden": 16})
    assert (old["load_with"], new["load_with"]) == ({}, {"how": 1})


def test_a_scenario_overrides_inputs_and_outputs_of_its_base(tmp_path: Path) -> None:
    extra = 'outputs = ["logits"]\ninputs = { other = { kind = "mask", shape = [2, 3], pad_left = [0, 1] } }'
    (declared,) = make(tmp_path, extra=extra).scenarios()
    resolved = resolve(declared, V061)
    assert set(resolved["inputs"]) == {"input", "other"}
    assert resolved["outputs"] == ["logits"]


@pytest.mark.parametrize(
    ("requires", "versions", "reason"),
    [
        ('["peft>=0.6"]', {"peft": "0.6.1"}, ""),
        ('["peft>=0.6"]', {"peft": "0.6.0.dev0"}, ""),
        ('["peft>=0.6"]', {"peft": "0.5.0"}, "needs peft>=0.6, has peft 0.5.0"),
        ('["peft>=0.6", "torch>=2"]', {"peft": "0.6.1"}, "needs torch>=2, and torch is not in the environment"),
        ("[]", {}, ""),
    ],
)
def test_unsupported_says_what_is_needed(tmp_path: Path, requires: str, versions: dict[str, str], reason: str) -> None:
    (declared,) = make(tmp_path, extra=f"requires = {requires}").scenarios()
    assert unsupported(declared, versions) == reason


def test_a_release_may_read_what_it_cannot_create(tmp_path: Path) -> None:
    (declared,) = make(tmp_path, extra='creator_requires = ["peft!=0.13.*"]').scenarios()
    assert unsupported(declared, {"peft": "0.13.2"}) == ""
    assert "peft!=0.13.*" in unsupported(declared, {"peft": "0.13.2"}, creating=True)
    assert unsupported(declared, {"peft": "0.14.0"}, creating=True) == ""


def test_a_pair_creates_what_is_not_stored(tmp_path: Path) -> None:
    (declared,) = make(
        tmp_path, extra='requires = ["peft>=0.6"]\nstored_by = ["peft==0.6.*", "peft>=0.21"]'
    ).scenarios()
    assert unstored(declared, {"peft": "0.6.1"}) == unstored(declared, {"peft": "0.22.0"}) == ""
    assert "peft==0.6.* or peft>=0.21" in unstored(declared, {"peft": "0.9.0"})
    assert "needs peft>=0.6" in unstored(declared, {"peft": "0.5.0"})
    assert unsupported(declared, {"peft": "0.9.0"}, creating=True) == ""


def test_a_files_stored_by_is_the_default_of_its_scenarios(tmp_path: Path) -> None:
    (declared,) = make(tmp_path).scenarios()
    text = declared.file.read_text(encoding="utf-8")
    declared.file.write_text('stored_by = ["peft>=0.21"]\n' + text, encoding="utf-8")
    (declared,) = Matrix(tmp_path).scenarios()
    assert declared.scenario.stored_by == ["peft>=0.21"]


# --- the digest


def test_experts_and_conversion_are_resolved_if_declared(tmp_path: Path) -> None:
    (declared,) = make(tmp_path).scenarios()
    plain = resolve(declared, V061)
    assert not {"adapter_inputs", "experts"} & {*plain, *plain["adapter"]}, "digests of other scenarios must stay"
    (declared,) = make(
        tmp_path,
        extra='adapter_inputs = { task_ids = { kind = "values", values = [1, 0] } }',
        when='[scenario.adapter.experts.0]\nconfig = "LoraConfig"\nargs = { r = 2 }\n',
    ).scenarios()
    resolved = resolve(declared, V061)
    assert resolved["adapter_inputs"]["task_ids"]["values"] == [1, 0]
    assert resolved["adapter"]["experts"] == {"0": {"config": "LoraConfig", "args": {"r": 2}}}


def test_the_digest_covers_what_is_made_not_why(tmp_path: Path) -> None:
    def of(text: str, versions: dict[str, str] = V061) -> str:
        make(tmp_path)
        (tmp_path / "scenarios" / "s.toml").write_text(text, encoding="utf-8")
        (declared,) = Matrix(tmp_path).scenarios()
        return digest(resolve(declared, versions))

    plain = SCENARIO.format(extra="", when=WHEN)
    assert of(plain) == of(plain)
    assert re.fullmatch("[0-9a-f]{64}", of(plain))
    assert of(plain) == of(plain.replace('why = "w"', 'why = "another reason"'))
    assert of(plain) == of(plain.replace('base = "b"', 'base = "b"\nguards = ["https://example.org/1"]'))
    assert of(plain) != of(plain.replace("lora_alpha = 6", "lora_alpha = 7"))
    assert of(plain) != of(plain.replace('base = "b"', 'base = "b"\nadapter_name = "other"'))
    assert of(plain) != of(plain, {"peft": "0.4.0"})


# --- conditions


@pytest.mark.parametrize(
    ("text", "versions", "holds"),
    [
        ("peft>=0.6,<0.7", {"peft": "0.6.1"}, True),
        ("peft>=0.6,<0.7", {"peft": "0.7.0"}, False),
        ("peft >= 0.6 , < 0.7", {"peft": "0.6.1"}, True),
        ("peft<0.7", {"peft": "0.7.0.dev0"}, False),
        ("peft>=0.22", {"peft": "0.22.0.dev0+gabc123"}, True),
        ("torch>=2.13", {"torch": "2.13.0+cpu"}, True),
        ("transformers>=5", {"transformers": "5.0.0rc1"}, True),
        ("peft==0.6.1", {"peft": "0.6.1"}, True),
        ("peft!=0.6.1", {"peft": "0.6.1"}, False),
        ("peft>=0.6, transformers>=4.40", {"peft": "0.6.1", "transformers": "4.35.2"}, False),
        ("peft>=0.6, transformers>=4.40", {"peft": "0.6.1", "transformers": "4.40.0"}, True),
        ("bitsandbytes", {"bitsandbytes": "0.46.0"}, True),
        ("bitsandbytes", {}, False),
        ("Huggingface_Hub>=0.19", {"huggingface-hub": "0.19.4"}, True),
        ("peft>=0.6", {"peft": "no version"}, False),
    ],
)
def test_conditions(text: str, versions: dict[str, str], holds: bool) -> None:
    assert requirements.parse(text).holds(versions) is holds


@pytest.mark.parametrize("text", ["", ",", ">=0.6", "peft=>0.6", "peft 0.6", "peft>=banana", "peft>=0.6 <0.7", "0.6"])
def test_an_invalid_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"peft|condition"):
        requirements.parse(text)


# --- files that are wrong


def replaced(old: str, new: str) -> str:
    text = SCENARIO.format(extra="", when=WHEN)
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(replaced('why = "w"', 'whi = "w"'), ["`scenario[0].whi`", "`why`", "adapter_name"], id="top key"),
        pytest.param("famly = 'x'\n" + replaced("", ""), ["`famly`", "`family`", "one of family, scenario"], id="file"),
        pytest.param(
            replaced("config =", "confg ="),
            ["`scenario[0].adapter.confg`", "`config`", "args, config"],
            id="nested key",
        ),
        pytest.param(
            replaced("skip =", "skpi ="), ["`scenario[0].when[1].skpi`", "`skip`", "args, config, drop"], id="in a list"
        ),
        pytest.param(
            replaced("expects = { keys", "expects = { kyes"),
            ["`scenario[0].when[1].expects.kyes`", "`keys`"],
            id="in a list's table",
        ),
        pytest.param(
            replaced('base = "b"', 'base = "b"\ninputs = { x = { kind = "mask", shape = [1], size = 3 } }'),
            ["`scenario[0].inputs.x.size`", "contain, dtype, high"],
            id="in a mapping's table",
        ),
        pytest.param(replaced('why = "w"', "why = 3"), ["`scenario[0].why` = 3", "string"], id="number for text"),
        pytest.param(replaced('base = "b"', 'base = "b"\nguards = "x"'), ["`scenario[0].guards` = 'x'"], id="no list"),
        pytest.param(
            replaced('base = "b"', 'base = "b"\ntime_limit_s = "9"'),
            ["`scenario[0].time_limit_s` = '9'"],
            id="no number",
        ),
        pytest.param(replaced('"a" = 1', '"a" = 1.5'), ["`scenario[0].when[1].expects.keys.a` = 1.5"], id="no integer"),
        pytest.param(replaced('why = "w"', 'why = ""'), ["`scenario[0].why` = ''"], id="empty why"),
        pytest.param(replaced('name = "s"', 'name = "No spaces"'), ["`scenario[0].name` = 'No spaces'"], id="name"),
        pytest.param(replaced('why = "w"', ""), ["`scenario[0].why` is missing"], id="missing key"),
        pytest.param(replaced('config = "LoraConfig"', ""), ["`scenario[0].adapter.config` is missing"], id="config"),
        pytest.param(replaced('base = "b"', ""), ["exactly one of `base`, `base_file`"], id="no base"),
        pytest.param(replaced('base = "b"', 'base = "bb"'), ["'bb'", "did you mean 'b'", "add"], id="unknown base"),
        pytest.param(
            replaced('base = "b"', 'base_file = "gone.py"'),
            ["`scenario[0].base_file` = 'gone.py'", "No such file"],
            id="no base_file",
        ),
        pytest.param(
            replaced('base = "b"', 'base = "b"\nskip = { mergd = "x" }'), ["mergd", "merge_and_unload"], id="probe"
        ),
        pytest.param(
            replaced('base = "b"', 'base = "b"\nrequires = ["peft=>1"]'), ["'peft=>1' is no condition"], id="requires"
        ),
        pytest.param(
            replaced('if = "peft<0.5"', 'if = "peft 0.5"'),
            ["`scenario[0].when[0].if` = 'peft 0.5'", "is no condition"],
            id="if",
        ),
        pytest.param(
            replaced('base = "b"', 'base = "b"\ninputs = { x = { kind = "mask" } }'),
            ["`scenario[0].inputs.x`", "needs `shape`"],
            id="input",
        ),
        pytest.param("", ["`scenario` is missing"], id="empty file"),
        pytest.param("scenario = []\n", ["`scenario` = []"], id="no scenario"),
        pytest.param("[[scenario]\n", ["not TOML", "line 1"], id="broken TOML"),
    ],
)
def test_a_wrong_scenario_file_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    matrix = make(tmp_path)
    file = tmp_path / "scenarios" / "s.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        matrix.scenarios()
    message = str(caught.value)
    for part in [str(file), "next:", *words]:
        assert part in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(BASE.format(extra="outptus = []"), ["`outptus`", "`outputs`"], id="unknown key"),
        pytest.param('why = "b"', ["exactly one of `transformers`, `hub`, `modules`, `python`"], id="no kind"),
        pytest.param('why = "b"\npython = "gone.py"', ["`python` = 'gone.py'"], id="no Python file"),
        pytest.param(
            'why = "b"\nmodules = [{ name = "lin", type = "Linear", kwarg = {} }]',
            ["`modules[0].kwarg`", "`kwargs`", "args, kwargs, name, type"],
            id="in a module",
        ),
    ],
)
def test_a_wrong_base_file_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    matrix = make(tmp_path, base=text)
    with pytest.raises(UsageError) as caught:
        matrix.scenarios()
    for part in [str(tmp_path / "bases" / "b.toml"), *words]:
        assert part in str(caught.value)


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    matrix = make(tmp_path)
    text = replaced('why = "w"', "why = 3").replace("config =", "confg =", 1)
    (tmp_path / "scenarios" / "s.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"why.*confg"):
        matrix.scenarios()


def test_two_scenarios_may_not_share_a_name(tmp_path: Path) -> None:
    matrix = make(tmp_path)
    (tmp_path / "scenarios" / "t.toml").write_text(SCENARIO.format(extra="", when=""), encoding="utf-8")
    with pytest.raises(UsageError, match=r"t\.toml: scenario name 's' is taken by .*s\.toml"):
        matrix.scenarios()


def test_a_folder_without_scenarios_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scenario in"):
        Matrix(tmp_path).scenarios()
    with pytest.raises(UsageError, match="no folder"):
        Matrix(tmp_path / "gone")


def test_a_file_that_is_not_there_or_not_utf8(tmp_path: Path) -> None:
    matrix = make(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        matrix.scenarios([tmp_path / "gone.toml"])
    (tmp_path / "latin.toml").write_bytes("why = 'ü'".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        matrix.scenarios([tmp_path / "latin.toml"])


def test_a_file_outside_uses_its_own_bases_or_ours(tmp_path: Path) -> None:
    make(tmp_path / "main")
    own = tmp_path / "own" / "mine.toml"
    own.parent.mkdir()
    own.write_text(SCENARIO.format(extra="", when=""), encoding="utf-8")
    (declared,) = Matrix(tmp_path / "main").scenarios([own])
    assert declared.base.why == "b"
    assert declared.family == "mine"
    (own.parent / "bases").mkdir()
    (own.parent / "bases" / "b.toml").write_text(BASE.format(extra="").replace('"b"', '"own"', 1), encoding="utf-8")
    (declared,) = Matrix(tmp_path / "main").scenarios([own])
    assert declared.base.why == "own"


def test_a_base_in_python_travels_as_text(tmp_path: Path) -> None:
    make(tmp_path)
    source = "def build():\n    return None\n"
    (tmp_path / "scenarios" / "net.py").write_text(source, encoding="utf-8")
    text = replaced('base = "b"', 'base_file = "net.py"')
    (tmp_path / "scenarios" / "s.toml").write_text(text, encoding="utf-8")
    (declared,) = Matrix(tmp_path).scenarios()
    base = resolve(declared, V061)["base"]
    assert (base["kind"], base["name"], base["source"]) == ("python", "net", source)


@pytest.mark.parametrize("name", ["LoraConfig; import os", "os.system('x')", "A\nB", "", "1", "Lora Config"])
def test_what_is_no_name_of_a_class_is_refused(name: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="config"):
        Adapter.model_validate({"config": name})
