"""Changed files → scenarios, on layouts as PEFT's, Transformers' and others' are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from harness.core.matrix import Declared
from harness.core.scenario import Base, Scenario
from harness.runner.change import scope, touched
from harness.runner.change.touched import Files, Touched

PEFT = {
    "peft/__init__.py": "from .tuners import *",
    "peft/peft_model.py": "from .tuners.lora.layer import LoraLayer\nfrom .tuners.tuners_utils import x",
    "peft/utils/other.py": "",
    "peft/tuners/__init__.py": "from .lora import LoraConfig\nfrom .adalora import AdaLoraConfig",
    "peft/tuners/tuners_utils.py": "",
    "peft/tuners/kron_utils.py": "",
    "peft/tuners/matrix_utils.py": "",
    "peft/tuners/lora/config.py": "class LoraConfig: pass",
    "peft/tuners/lora/layer.py": "from ..tuners_utils import x\nclass LoraLayer: pass",
    "peft/tuners/adalora/config.py": "from peft.tuners.lora import LoraConfig\nclass AdaLoraConfig(LoraConfig): pass",
    "peft/tuners/xlora/config.py": "def f():\n    from peft import LoraConfig\nclass XLoraConfig: pass",
    "peft/tuners/lokr/config.py": "class LoKrConfig: pass",
    "peft/tuners/lokr/layer.py": "from peft.tuners.tuners_utils import y\nfrom ..kron_utils import kron",
    "peft/tuners/trainable_tokens/config.py": "class TrainableTokensConfig: pass",
    "peft/tuners/mixed/model.py": "from peft.tuners import lora, lokr\nclass MixedModel: pass",
}
TRANSFORMERS = {
    "transformers/modeling_utils.py": "",
    "transformers/models/auto/modeling_auto.py": "class AutoModel: pass",
    "transformers/models/llama/modeling_llama.py": "class LlamaForCausalLM: pass",
    "transformers/models/mistral/modeling_mistral.py": "class MistralForCausalLM: pass",
    "transformers/models/mixtral/modeling_mixtral.py": "from ..mistral import z\nclass MixtralForCausalLM: pass",
    "transformers/models/llava/modeling_llava.py": "class LlavaModel: pass",
    "transformers/models/llava/configuration_llava.py": "from ..auto import CONFIG_MAPPING as M\nx = M['clip']()",
    "transformers/models/clip/modeling_clip.py": "class CLIPModel: pass",
}


def declared(name: str, config: str = "LoraConfig", model: str = "", base: Mapping[str, Any] | None = None,
             **more: Any) -> Declared:  # fmt: skip
    args = more.pop("args", {})
    made = {"name": name, "why": "x", "base": "b", "adapter": {"config": config, "args": args}, **more}
    of = {"transformers": {"model": model, "config": "C", "args": {}}} if model else {"modules": [_MODULE]}
    return Declared(
        Scenario.model_validate({"family": "f", **made}), Base.model_validate({"why": "x", **(base or of)}), "b",
        __import__("pathlib").Path("x.toml"), {},
    )  # fmt: skip


_MODULE = {"name": "a", "type": "Linear"}
METHODS = [
    declared("lora"),
    declared("adalora", "AdaLoraConfig"),
    declared("xlora", "XLoraConfig"),
    declared("lokr", "LoKrConfig"),
    declared("tokens", "TrainableTokensConfig"),
    declared("lora-tokens", args={"trainable_token_indices": [1]}),
    declared("mixed-door", "LoKrConfig", load_paths=["mixed"]),
    declared("unknown", "NobodyKnowsConfig"),
]


def files(texts: Mapping[str, str]) -> Files:
    return Files(frozenset(texts), texts.__getitem__)


def hit(package: str, texts: Mapping[str, str], *changed: str, scenarios: list[Declared] = METHODS) -> Touched:
    return touched.of(package, changed, files(texts), scenarios)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lokr/layer.py", {"lokr", "mixed-door", "unknown"}),
        ("lokr/gone.py", {"lokr", "mixed-door", "unknown"}),
        ("lora/layer.py", {"lora", "adalora", "xlora", "lora-tokens", "unknown"}),
        ("adalora/config.py", {"adalora", "unknown"}),
        ("trainable_tokens/layer.py", {"tokens", "lora-tokens", "unknown"}),
        ("mixed/model.py", {"mixed-door", "unknown"}),
    ],
)
def test_a_methods_own_files_touch_it_and_what_builds_on_it(name: str, expected: set[str]) -> None:
    found = hit("peft", PEFT, f"peft/tuners/{name}")
    assert set(found.scenarios) == expected
    assert not found.everything
    assert found.groups == (name.partition("/")[0],)


@pytest.mark.parametrize(
    "name", ["peft/utils/other.py", "peft/peft_model.py", "peft/tuners/tuners_utils.py", "pyproject.toml", "csrc/a.cu"]
)
def test_what_is_shared_touches_all(name: str) -> None:
    found = hit("peft", PEFT, "peft/tuners/lokr/layer.py", name)
    assert len(found.scenarios) == len(METHODS)
    assert name in found.everything


@pytest.mark.parametrize(
    ("importing", "groups"),
    [
        ({}, ("lokr",)),
        ({"peft/tuners/xlora/layer.py": "from peft.tuners import kron_utils"}, ("lokr", "xlora")),
        ({"peft/tuners/matrix_utils.py": "from .kron_utils import kron"}, ()),
        (
            {
                "peft/tuners/matrix_utils.py": "from .kron_utils import kron",
                "peft/tuners/adalora/layer.py": "import peft.tuners.matrix_utils",
            },
            ("adalora", "lokr"),
        ),
        ({"peft/mapping.py": "from .tuners.kron_utils import kron"}, ()),
    ],
)
def test_a_file_that_only_methods_import_touches_these(importing: dict[str, str], groups: tuple[str, ...]) -> None:
    found = hit("peft", {**PEFT, **importing}, "peft/tuners/kron_utils.py")
    assert found.groups == groups
    assert bool(found.everything) is not bool(groups)


def test_a_method_that_no_scenario_is_about_is_said() -> None:
    texts = {**PEFT, "peft/tuners/brandnew/config.py": "class BrandNewConfig: pass"}
    found = hit("peft", texts, "peft/tuners/brandnew/config.py", scenarios=METHODS[:4])
    assert (found.scenarios, found.uncovered) == ({}, ("peft/tuners/brandnew/config.py",))


def test_a_file_that_does_not_compile_leaves_nobody_out_who_needs_it() -> None:
    texts = {**PEFT, "peft/tuners/adalora/layer.py": "def ("}
    assert "adalora" in hit("peft", texts, "peft/tuners/lokr/layer.py").scenarios


def test_models_of_transformers() -> None:
    def base(model: str, **args: Any) -> dict[str, Any]:
        return {"transformers": {"model": model, "config": "C", "args": args}}

    scenarios = [
        declared("on-llama", model="LlamaForCausalLM"),
        declared("on-mixtral", model="MixtralForCausalLM"),
        declared("on-modules"),
        declared("on-llava", base=base("LlavaModel", text_config={"model_type": "llama"})),
        declared("on-what", model="NobodyKnows"),
    ]
    expected = {
        "llama/modeling_llama.py": {"on-llama", "on-llava", "on-what"},
        "mistral/modeling_mistral.py": {"on-mixtral", "on-what"},
        "clip/modeling_clip.py": {"on-llava", "on-what"},
    }
    for name, scenario_names in expected.items():
        found = hit("transformers", TRANSFORMERS, f"transformers/models/{name}", scenarios=scenarios)
        assert set(found.scenarios) == scenario_names, name
    for name in ("transformers/models/auto/modeling_auto.py", "transformers/modeling_utils.py"):
        assert len(hit("transformers", TRANSFORMERS, name, scenarios=scenarios).scenarios) == 5


def test_other_packages_touch_those_who_use_them() -> None:
    scenarios = [
        declared("plain"), declared("trained", sft={}, creator_requires=["trl>=0.20"]),
        declared("quantised", quantize={"bits": 4}, requires=["bitsandbytes>=0.46"]),
    ]  # fmt: skip
    assert set(hit("trl", {}, "trl/trainer/sft_trainer.py", scenarios=scenarios).scenarios) == {"trained"}
    assert set(hit("bitsandbytes", {}, "bitsandbytes/nn.py", scenarios=scenarios).scenarios) == {"quantised"}
    assert len(hit("accelerate", {}, "accelerate/x.py", scenarios=scenarios).scenarios) == 3
    untouched = hit("bitsandbytes", {}, scenarios=scenarios)
    assert untouched.scenarios == {}
    sample = scope.choose(scenarios, untouched, "", {"bitsandbytes": "0.50.2", "peft": "1"})
    assert sample.rule == "sample"
    assert set(sample.scenarios) == {"quantised"}, "a sample of those that use it"


LORA_MODEL = "peft/tuners/lora/model.py"
IMPORT = "from ..lokr.config import LoKrConfig"


@pytest.mark.parametrize(
    ("text", "affected"),
    [
        ("from peft.tuners.lokr.config import LoKrConfig\nclass M(LoKrConfig): pass", True),
        ("def f():\n    IMPORT\n    LoKrConfig()\nclass M:\n    def m(self): f()", True),
        ("class M:\n    def m(self):\n        IMPORT\n        LoKrConfig()", True),
        ("class M:\n    def m(self, x):\n        IMPORT\n        isinstance(x, LoKrConfig)", False),
        ("IMPORT\ndef f(x): return isinstance(x, (int, LoKrConfig))", False),
        ("IMPORT\nx = isinstance(LoKrConfig(), int)", True),
        ("IMPORT\ndef f(x: LoKrConfig) -> LoKrConfig: pass", False),
        ("if TYPE_CHECKING:\n    IMPORT\nx: list[LoKrConfig]", False),
        ("def convert_other():\n    IMPORT\n    LoKrConfig()", False),
        ("def f_one():\n    f_two()\ndef f_two():\n    IMPORT\n    f_one(LoKrConfig)", False),
        ("def b():\n    IMPORT\n    LoKrConfig()\nb()", True),
        ("@register\ndef b():\n    IMPORT\n    LoKrConfig()", True),
        ("def load_adapter():\n    IMPORT\n    LoKrConfig()", True),  # the worker calls it
    ],
)  # fmt: skip
def test_an_import_counts_where_it_can_make_code_run(text: str, affected: bool) -> None:
    found = hit("peft", {**PEFT, LORA_MODEL: text.replace("IMPORT", IMPORT)}, "peft/tuners/lokr/config.py")
    assert ("lora" in found.scenarios) is affected
    assert {"lokr", "unknown"} <= set(found.scenarios)


def test_lora_does_not_need_adalora_and_adalora_needs_lora() -> None:
    """LoRA imports a class of AdaLoRA in a method, to tell its layers from its own."""
    text = "class LoraModel:\n    def m(self, x):\n        from peft.tuners.adalora import AdaLoraLayer\n"
    text += "        return not isinstance(x, AdaLoraLayer)"
    layer = {"peft/tuners/adalora/layer.py": "class AdaLoraLayer: pass"}
    assert "lora" not in hit("peft", {**PEFT, **layer, LORA_MODEL: text}, *layer).scenarios
    assert {"lora", "adalora"} <= set(hit("peft", {**PEFT, **layer, LORA_MODEL: text}, LORA_MODEL).scenarios)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("src/peft/tuners/lora/layer.py", "peft/tuners/lora/layer.py"),
        ("peft/mapping.py", "peft/mapping.py"),
        ("./src/peft/__init__.py", "peft/__init__.py"),
        ("pyproject.toml", "pyproject.toml"),
        ("csrc/kernels.cu", "csrc/kernels.cu"),
        ("tests/test_peft.py", None),
        ("docs/source/index.md", None),
        ("README.md", None),
        (".github/workflows/x.yml", None),
        ("peft-0.21.2.dist-info/RECORD", None),
        ("src/peft/__pycache__/x.pyc", None),
    ],
)
def test_where_a_checkouts_files_are_installed(name: str, expected: str | None) -> None:
    assert touched.installed_name(name, {"peft"}) == expected


def test_where_nothing_is_affected_one_of_each_family_is_checked() -> None:
    scenarios = [
        declared("a"),
        declared("b"),
        declared("c", family="g"),
        declared("d", requires=["trl>=1"], family="h"),
    ]
    found = scope.choose(scenarios, Touched(), "", {"peft": "1"})
    assert found.left_out["d"].startswith("the baseline lacks it: needs trl")
    for able, kept in ((scenarios[:3], {"a", "c"}), (scenarios[1:3], {"b", "c"})):  # all, and those with a fixture
        reduced, features = scope.reduced(found, able, dict.fromkeys("abc", 1))
        assert set(reduced.scenarios) & {one.name for one in able} == kept
        assert features == {}
    assert reduced.words == f"a sample, one scenario of each family: {scope.NOTHING}"
    reduced, _ = scope.reduced(found, scenarios[:3], dict.fromkeys("abc", 1))
    assert "a sample was checked" in reduced.left_out["b"]


def test_a_change_to_a_shared_file_is_checked_by_scenarios_that_have_every_feature() -> None:
    scenarios = [declared("a"), declared("b"), declared("c", "VeraConfig")]
    found = scope.choose(scenarios, Touched({}, everything="x.py is shared by all"), "", {"peft": "1"})
    reduced, features = scope.reduced(found, scenarios, {"a": 2, "b": 1, "c": 1})
    assert set(reduced.scenarios) == set(features) == {"b", "c"}
    assert reduced.words == "2 of 3 scenarios, which cover all 2 features: x.py is shared by all"
    assert reduced.left_out == {"a": "the scenarios that are checked have its features too; --every-scenario checks it"}


def test_an_affected_scenario_is_never_reduced() -> None:
    scenarios = [declared("a"), declared("b")]
    found = scope.choose(scenarios, Touched({"a": "why", "b": "why"}, groups=("lora",)), "", {"peft": "1"})
    assert scope.reduced(found, scenarios, dict.fromkeys("ab", 1)) == (found, {})


def test_whose_fixtures() -> None:
    having = {"v040": {"a"}, "v061": {"a", "b"}, "v0140": {"c", "d", "a"}, "v0200": {"d"}}
    pairs, out = scope.pair("abcde", having, [])
    assert pairs == {("a", "v061"), ("b", "v061"), ("c", "v0140"), ("d", "v0140")}
    assert set(out) == {"e"}
    assert scope.pair("ab", having, ["v040"]) == ({("a", "v040"), ("b", "v040")}, {})
