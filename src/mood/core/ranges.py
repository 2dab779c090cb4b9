"""The numbers that settings take, each with its range: a config refuses what lies outside before anything is done."""

from typing import Annotated, TypeAlias

from pydantic import Field

Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""NumPy's global generator and scikit-learn take no other."""

Count: TypeAlias = Annotated[int, Field(ge=1)]
"""Of what there must be at least one."""

Natural: TypeAlias = Annotated[int, Field(ge=0)]
"""Of what there may be none."""

Workers: TypeAlias = Annotated[int, Field(ge=0, le=1024)]
"""Processes beside this one: a number with a digit too many would bring the machine down."""

Positive: TypeAlias = Annotated[float, Field(gt=0)]
"""(0, ∞)."""

NotNegative: TypeAlias = Annotated[float, Field(ge=0)]
"""[0, ∞); 0 is mostly off."""

Level: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
"""(0, 1): of rates and confidences, none of which is certain."""

Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""[0, 1): what may be nothing and must leave something."""

Part: TypeAlias = Annotated[float, Field(gt=0, le=1)]
"""(0, 1]: what must be something and may be all."""

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""[0, 1]."""
