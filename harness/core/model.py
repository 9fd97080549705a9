"""The base classes of all data models."""

from __future__ import annotations

import pydantic


class Model(pydantic.BaseModel):
    """Immutable data. An unknown field is an error. Infinity and NaN become strings in JSON."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Strict(Model):
    """Data that a person or another program wrote: no value is converted, so `"3"` is not the number 3."""

    model_config = pydantic.ConfigDict(strict=True)
