"""What all settings share."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from egra_dist.extension import is_own

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class OneOf:
    """A text that is one of these names, or names code of the user's own."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str) -> str:
        if name in self.names or is_own(name):
            return name
        names = ", ".join(map(repr, self.names))
        allowed = f"Input should be {names}, or your own as 'package.module:function'"
        raise PydanticCustomError("one_of", allowed)


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values are finite and cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
