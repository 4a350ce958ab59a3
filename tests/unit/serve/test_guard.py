import pytest
from mlflow.exceptions import MlflowException

from egra_dist.serve.egra_model.guard import guarded


def test_answers_and_their_arguments_pass():
    assert guarded(lambda *arguments: arguments)(b"x", "text/csv", 1, 2) == (b"x", "text/csv", 1, 2)
    assert guarded(lambda data, kind: kind)(b"", None) == "no content type"


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RecursionError("too deep"), "the request cannot be read: RecursionError: too deep"),
        (AttributeError("x" * 1000), "the request cannot be read: AttributeError: xxx"),
        (MlflowException("Failed to predict data 'd'. \nError: k is -1"), "k is -1"),
        (MlflowException("not a table", stack_trace="Traceback ..."), "not a table"),
    ],
)
def test_failures_have_a_short_reason_and_no_trace(raised, reason):
    def answer(data, kind):
        raise raised

    with pytest.raises(MlflowException) as error:
        guarded(answer)(b"", "application/json")
    shown = error.value.serialize_as_json()
    assert error.value.message.startswith(reason) and len(error.value.message) <= 500
    assert "Traceback" not in shown and "stack_trace" not in shown
    if not isinstance(raised, MlflowException):
        assert error.value.get_http_status_code() == 400
