"""The JSON Schema of `report.json`, made from the model; `python -m harness.report.schema` writes it to `docs/`."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from harness.core import data
from harness.core.files import write_atomically
from harness.core.run import FORMAT, Run

NAME = "report.schema.json"
"""The schema of this version under docs/."""


class _Generator(GenerateJsonSchema):
    """Floats as `report.json` writes them: JSON has no infinity, so three of them are strings."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), {"enum": ["Infinity", "-Infinity", "NaN"]}]}


def schema() -> dict[str, Any]:
    """The schema of the format that this version writes.

    A field that has a default may be missing from a file. The schema includes the number of the format: a file of
    another format is not valid.
    """
    made = Run.model_json_schema(schema_generator=_Generator)
    made["properties"]["format"] = {"const": FORMAT, "description": "Version of the format."}
    made["required"] = ["format", *made["required"]]
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:peft-regress:report:{FORMAT}",
        "title": f"report.json of peft-regress, format {FORMAT}",
    }
    return head | {name: value for name, value in made.items() if name not in head}


def text() -> str:
    """The schema as it is committed."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the schema to where it is committed."""
    file = data.docs() / NAME
    write_atomically(file, text().encode())
    sys.stdout.write(f"{file}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
