"""Names that change between creator and loader: a pair of releases that loses them, and one that does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.conftest import Said

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.xdist_group("real")]


@pytest.mark.parametrize(
    ("peft", "verdict", "given", "changed"),
    [("0.19.1", "silent-wrong", "PeftModel", 0), ("0.20.0", "exact", "LlavaForConditionalGeneration", 8)],
)
def test_the_scope_of_the_peft_model(
    peft: str, verdict: str, given: str, changed: int, peft_regress: Callable[..., Said]
) -> None:
    """PEFT asked for the conversions of the PEFT model, not of the base: nothing was renamed (pull request 3230)."""
    loader = f"peft=={peft},transformers==5.9.0"
    said = peft_regress("pair", "--creator", "v0181", "--loader", loader, "-k", "lora-llava-vision")

    (cell,) = [cell for cell in said.report["cells"] if cell["scenario"] == "lora-llava-vision"]
    views = {view["of"]: view for view in cell["conversion"]["views"]}
    assert cell["verdict"] == verdict
    assert (views["PEFT's own"]["given"], views["PEFT's own"].get("changed", 0)) == (given, changed)
    assert views["base"]["changed"] == 8
    assert views["PEFT model"].get("changed", 0) == 0
    assert any("base_model.model" in scope for _, scope in views["PEFT model"]["conversions"])
