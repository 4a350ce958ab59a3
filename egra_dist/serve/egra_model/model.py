"""The model as MLflow loads it: from this code and the files beside it, without a pickle."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from egra_model.errors import RequestError
from egra_model.guard import guard_scoring_server
from egra_model.recommender import Recommender
from egra_model.requests import parse_k, parse_rows
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.pyfunc import PythonModel, PythonModelContext


class RecommenderModel(PythonModel):
    """Users, or items they chose, in; items and scores out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Opens the files."""
        self._recommender = Recommender.open(Path(context.artifacts["data"]))
        guard_scoring_server()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One row of ``items``, ``scores``, ``source`` and ``ignored`` for each row of the input.

        Raises:
            MlflowException: With status 400 and the reason, if the request cannot be answered.
        """
        recommender = self._recommender
        try:
            k = parse_k(params)
            queries = parse_rows(model_input, recommender.users, recommender.items)
            answers = [recommender.answer(query, k) for query in queries]
        except RequestError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        except Exception as error:
            raise MlflowException(
                f"the model failed: {type(error).__name__}", INTERNAL_ERROR
            ) from error
        return pd.DataFrame([asdict(answer) for answer in answers])


set_model(RecommenderModel())
