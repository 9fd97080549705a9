"""The Python examples of the pages about one deviation import what is there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.mini.world import REPOSITORY


@pytest.mark.parametrize("page", ["showing-a-break", "which-library"])
def test_the_examples_import_and_name_what_is_there(page: str) -> None:
    text = (REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    tree = ast.parse(code)
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found: dict[str, object] = {}
    exec(compile(ast.Module(imports, []), page, "exec"), found)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in found:
            assert hasattr(found[node.value.id], node.attr), node.attr
