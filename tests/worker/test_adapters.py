"""The doors that adapters go through, with stand-ins for PEFT and torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.worker.model import adapters, bases, fill


class BaseTunerLayer:
    """PEFT's, since 0.6."""


class LoraLinear(BaseTunerLayer):
    """A layer with an adapter, of any release that has `BaseTunerLayer`."""


class LoraLayer:
    """PEFT's, up to 0.5."""


class ModulesToSaveWrapper:
    """PEFT's."""


class TrainableTokensWrapper:
    """PEFT's, since 0.15."""


class ModuleList(list[Any]):
    """Torch's."""


class Tree:
    """A model that is but its modules' and parameters' names."""

    def __init__(self, modules: dict[str, Any], parameters: dict[str, Any] | None = None) -> None:
        self.modules = modules
        self.parameters = parameters or {}

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        yield from self.modules.items()

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        yield from self.parameters.items()


class Growing:
    """A model that gets further parameters with another adapter."""

    def __init__(self, parameters: dict[str, Any], added: dict[str, Any]) -> None:
        self.parameters_by_name = parameters
        self.added = added
        self.active = "default"

    def add_adapter(self, *_: Any) -> None:
        self.parameters_by_name |= self.added

    def set_adapter(self, name: str) -> None:
        self.active = name

    def parameters(self) -> Iterator[Any]:
        yield from self.parameters_by_name.values()

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        yield from self.parameters_by_name.items()


class Saved:
    """A model that saves as PEFT does: adapters that aren't called `default` into a folder of their name."""

    def __init__(self, adapter_name: str, nests: bool = True) -> None:
        self.adapter_name = adapter_name
        self.nests = nests

    def save_pretrained(self, folder: str) -> None:
        place = Path(folder)
        place.mkdir()
        (place / "README.md").write_text("a card", encoding="utf-8")
        if self.adapter_name != "default" and self.nests:
            place = place / self.adapter_name
            place.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (place / name).write_text(name, encoding="utf-8")


FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]


class TestSave:
    @pytest.mark.parametrize("name", ["default", "my_adapter"])
    @pytest.mark.parametrize("nests", [True, False])
    def test_files_stand_in_the_folder_itself(self, tmp_path: Path, name: str, nests: bool) -> None:
        adapters.save(Saved(name, nests), str(tmp_path / "adapter"), name)

        assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == FILES
        assert (tmp_path / "adapter" / "adapter_config.json").read_text() == "adapter_config.json"


class Several:
    """A model with adapters, which notes what is done to it."""

    def __init__(self, *names: str) -> None:
        self.peft_config = {name: SimpleNamespace(init_lora_weights="pissa") for name in names}
        self.done: list[Any] = []

    def save_pretrained(self, folder: str, **arguments: Any) -> None:
        initialisations = {config.init_lora_weights for config in self.peft_config.values()}
        self.done.append(("save", folder, arguments, initialisations))

    def add_adapter(self, name: str, config: Any) -> None:
        self.done.append(("add", name, config))

    def set_adapter(self, name: str) -> None:
        self.done.append(("set", name))

    def parameters(self) -> Iterator[Any]:
        return iter(())

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        return iter(())

    def eval(self) -> Several:
        return self


class TestCreate:
    @pytest.fixture
    def model(self, monkeypatch: pytest.MonkeyPatch) -> Several:
        model = Several("default")
        monkeypatch.setattr(adapters, "wrap", lambda *_: model)
        monkeypatch.setattr(adapters, "make_config", lambda adapter: adapter["config"])

        def fill_adapter(_torch: Any, model: Any, _scenario: Any, name: str) -> list[str]:
            model.done.append(("fill", name))
            return ["a"]

        monkeypatch.setattr(adapters, "fill_adapter", fill_adapter)
        return model

    def test_alone(self, model: Several) -> None:
        assert adapters.create(None, "base", {"adapter": {"name": "default"}}) == (model, ["a"])
        assert model.done == [("fill", "default")]

    def test_another_beside_it_is_filled_and_left(self, model: Several) -> None:
        scenario = {"name": "s", "adapter": {"name": "default"}, "beside": {"config": "Other", "args": {}}, "fill": {}}

        adapters.create(FakeTorch, "base", scenario)

        beside = [("add", "beside", "Other"), ("set", "beside")]
        assert model.done == [("fill", "default"), *beside, ("set", "default")]

    def test_what_is_converted_is_kept_before_it_is_filled(self, model: Several) -> None:
        adapters.create(None, "base", {"adapter": {"name": "default", "convert": True}})

        assert model.done == [("save", "work/initial", {}, {True}), ("fill", "default")]
        assert model.peft_config["default"].init_lora_weights == "pissa"


class TestSaveOfSeveral:
    @pytest.mark.parametrize(
        ("names", "convert", "arguments"),
        [
            (["default"], False, {}),
            (["default", "beside"], False, {"selected_adapters": ["default"]}),
            (["default"], True, {"path_initial_model_for_weight_conversion": "work/initial"}),
        ],
    )
    def test_only_the_first(self, names: list[str], convert: bool, arguments: dict[str, Any]) -> None:
        model = Several(*names)

        adapters.save(model, "adapter", "default", convert)

        assert model.done == [("save", "adapter", arguments, {"pissa"})]


class TestLayers:
    def test_each_kind_by_its_canonical_name(self) -> None:
        layers = {
            "base_model.model.q": LoraLinear(),
            "base_model.model.k": LoraLayer(),
            "base_model.model.score": ModulesToSaveWrapper(),
            "base_model.model.emb": TrainableTokensWrapper(),
        }
        model = Tree({"": object(), "base_model": object(), "base_model.model.plain": object(), **layers})

        assert adapters.adapter_layers(model, "default") == [
            (name.removeprefix("base_model.model."), layer) for name, layer in layers.items()
        ]

    def test_what_is_inside_of_one_is_not_another(self) -> None:
        model = Tree(
            {
                "base_model.model.q": LoraLinear(),
                "base_model.model.q.base_layer": LoraLinear(),
                "base_model.model.q.lora_A.default": LoraLayer(),
                "base_model.model.q_proj": LoraLinear(),  # a neighbour, though its name begins alike
            }
        )

        assert [name for name, _ in adapters.adapter_layers(model, "default")] == ["q", "q_proj"]

    def test_none(self) -> None:
        assert adapters.adapter_layers(Tree({"": object(), "lin": object()}), "default") == []

    def test_blocks_are_the_members_of_module_lists(self) -> None:
        torch = SimpleNamespace(nn=SimpleNamespace(ModuleList=ModuleList))
        model = Tree(
            {
                "base_model.model.layers": ModuleList(["first", "second"]),
                "base_model.model.lin": object(),
                "base_model.model.none": ModuleList(),
            }
        )

        assert adapters.blocks(torch, model, "default") == [("layers.0", "first"), ("layers.1", "second")]


class Parameter:
    """A parameter that can be told to be filled."""

    def __init__(self, *, trains: bool = True) -> None:
        self.requires_grad = trains
        self.shape = (2, 3)
        self.dtype = SimpleNamespace(is_floating_point=True)
        self.content: Any = None

    def copy_(self, tensor: Any) -> None:
        self.content = tensor


class FakeTorch:
    """As much of torch as filling needs."""

    @staticmethod
    def no_grad() -> Any:
        return contextlib.nullcontext()

    @staticmethod
    def from_numpy(array: np.ndarray[Any, Any]) -> Any:
        return SimpleNamespace(to=lambda _: array)


class TestFill:
    scenario = {"name": "lora-linear", "fill": {}}

    @staticmethod
    def model(*names: str, frozen: tuple[str, ...] = ()) -> Tree:
        parameters = {name: Parameter() for name in names} | {name: Parameter(trains=False) for name in frozen}
        return Tree({}, parameters)

    def expected(self, name: str, space: str = "adapter:lora-linear") -> np.ndarray[Any, Any]:
        found = fill.values(space, name, (2, 3))
        assert found is not None
        return found

    def test_what_trains_is_filled_by_its_canonical_name(self) -> None:
        name = "base_model.model.q.lora_A.default.weight"
        model = self.model(name, frozen=("base_model.model.q.base_layer.weight",))

        assert adapters.fill_adapter(FakeTorch, model, self.scenario, "default") == ["q.lora_A.weight"]
        assert np.array_equal(model.parameters[name].content, self.expected("q.lora_A.weight"))
        assert model.parameters["base_model.model.q.base_layer.weight"].content is None
        assert [name for name, _ in adapters.trainable(model, "default")] == ["q.lora_A.weight"]

    def test_the_adapters_name_does_not_change_its_values(self) -> None:
        contents = []
        for adapter in ("default", "mine"):
            model = self.model(f"base_model.model.q.lora_A.{adapter}.weight")
            adapters.fill_adapter(FakeTorch, model, self.scenario, adapter)
            contents += [parameter.content for parameter in model.parameters.values()]

        assert np.array_equal(*contents)

    def test_an_adapter_beside_gets_values_of_its_own_and_leaves_the_rest_alone(self) -> None:
        first, other = (f"base_model.model.q.lora_A.{name}.weight" for name in ("default", "beside"))
        of_base = "base_model.model.beside.inner.base_layer.weight"
        model = Growing(self.model(first, frozen=(of_base,)).parameters, {other: Parameter()})

        adapters.put_beside(FakeTorch, model, self.scenario, config=None)

        assert model.active == "beside"
        assert model.parameters_by_name[first].content is None
        assert model.parameters_by_name[of_base].content is None, "a part of the base has the adapter's name"
        assert np.array_equal(
            model.parameters_by_name[other].content, self.expected("q.lora_A.weight", "adapter:lora-linear:beside")
        )

    def test_the_scenarios_own_recipe(self) -> None:
        name = "base_model.model.q.lora_A.default.weight"
        model = self.model(name)

        adapters.fill_adapter(FakeTorch, model, {"name": "s", "fill": {"*lora_A*": (5.0, 0.0)}}, "default")

        assert (model.parameters[name].content == 5.0).all()


class FakePeft(ModuleType):
    """PEFT, as the doors see it; writes down who came through."""

    def __init__(self) -> None:
        super().__init__("peft")
        self.calls: list[tuple[Any, ...]] = []
        self.PeftConfig = SimpleNamespace(from_pretrained=lambda folder: self.calls.append(("config", folder)))
        self.PeftModel = SimpleNamespace(from_pretrained=self._load)
        self.LoraConfig = lambda **arguments: ("LoraConfig", arguments)
        self.get_peft_model = lambda base, config, adapter_name: (base, config, adapter_name)

    def _load(self, base: Any, folder: str, **options: Any) -> Any:
        self.calls.append(("model", base, folder, options))
        return SimpleNamespace(eval=lambda: self.calls.append(("eval",)))


@pytest.fixture
def peft(monkeypatch: pytest.MonkeyPatch) -> FakePeft:
    """In place of PEFT, which this environment lacks."""
    fake = FakePeft()
    monkeypatch.setitem(sys.modules, "peft", fake)
    monkeypatch.setattr(bases, "realign", lambda _: fake.calls.append(("realign",)))
    return fake


class TestDoors:
    adapter = {"name": "mine", "config": "LoraConfig", "args": {"r": 4, "lora_alpha": 7}}

    def test_wrap(self, peft: FakePeft) -> None:
        assert peft.calls == []
        assert adapters.wrap("base", self.adapter) == ("base", ("LoraConfig", {"r": 4, "lora_alpha": 7}), "mine")

    def test_a_configuration_that_this_release_lacks(self, peft: FakePeft) -> None:
        assert peft.calls == []
        with pytest.raises(AttributeError, match="XLoraConfig"):
            adapters.make_config({**self.adapter, "config": "XLoraConfig"})

    def test_load_reads_the_configuration_first_then_evaluates_and_realigns(self, peft: FakePeft) -> None:
        adapters.load("base", "mine", is_trainable=True)

        options = {"adapter_name": "mine", "is_trainable": True}
        assert peft.calls == [
            ("config", "adapter"),
            ("model", "base", "adapter", options),
            ("eval",),
            ("realign",),
        ]

    def test_a_configuration_that_cannot_be_read_is_told_apart(
        self, peft: FakePeft, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: str) -> None:
            raise ValueError("unknown peft type")

        monkeypatch.setattr(peft.PeftConfig, "from_pretrained", refuse)

        with pytest.raises(ValueError, match="unknown peft type"):
            adapters.load("base", "mine")
        assert peft.calls == []
