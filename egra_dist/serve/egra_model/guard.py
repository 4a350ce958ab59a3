"""Makes MLflow's scoring server answer what it cannot read with a reason instead of a trace.

The server answers 500 where a body breaks its own parser or has no content type, and sends stack
traces back where a CSV or Parquet body cannot be read. Models are loaded before the first request,
so that the function which answers requests can be wrapped here; elsewhere nothing is changed.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

_SERVER = "mlflow.pyfunc.scoring_server"
_MAX_REASON = 500


def guard_scoring_server() -> None:
    """Wraps the server's handler of requests, if this process is one; twice does no harm."""
    server = sys.modules.get(_SERVER)
    answer = getattr(server, "invocations", None)
    if server is not None and answer is not None and not hasattr(answer, "__wrapped__"):
        server.invocations = guarded(answer)  # type: ignore[attr-defined]


def guarded(answer: Callable[..., Any]) -> Callable[..., Any]:
    """``answer``, with every failure an ``MlflowException`` that has one reason and no trace."""

    @wraps(answer)
    def answer_guarded(data: Any, content_type: str | None, *others: Any) -> Any:
        try:
            return answer(data, content_type or "no content type", *others)
        except MlflowException as error:
            error.json_kwargs.pop("stack_trace", None)
            error.message = _short(error.message)
            raise
        except Exception as error:
            reason = f"the request cannot be read: {type(error).__name__}: {error}"
            raise MlflowException(_short(reason), BAD_REQUEST) from None

    return answer_guarded


def _short(message: str) -> str:
    """The reason alone: the server puts the whole input before it."""
    reason = message.rpartition("\nError: ")[2]
    return reason if len(reason) <= _MAX_REASON else f"{reason[: _MAX_REASON - 3]}..."
