"""``mlflow models serve`` answers HTTP requests, good ones and bad ones."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from tests.exported import WIDTHS, export_at_random
from tests.served import JSON, serving

PARQUET = "application/vnd.apache.parquet"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_at_random(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(exported):
    with serving(exported.model, exported.model.parent / "server.log") as client:
        yield client


def records(*rows, **params):
    return {"dataframe_records": rows, "params": params}


def test_model_folder_holds_no_pickle_and_no_path_of_ours(exported):
    files = [path for path in exported.model.rglob("*") if path.is_file()]
    suffixes = {".npy", ".arrow", ".faiss", ".py", ".json", ".yaml", ".txt", ""}
    assert {path.suffix for path in files} == suffixes
    text = (exported.model / "MLmodel").read_text()
    assert str(exported.model.parent) not in text and "egra_dist" not in text
    requirements = (exported.model / "requirements.txt").read_text().split()
    names = [line.partition("==")[0] for line in requirements]
    assert names == ["mlflow", "faiss-cpu", "numpy", "pandas", "pyarrow"]


def test_example_of_the_model_is_answered(exported, client):
    example = (exported.model / "serving_input_example.json").read_bytes()
    status, text = client.post(example)
    known, unknown = json.loads(text)["predictions"]
    assert (status, known["source"], unknown["source"]) == (200, "user", "items")
    assert len(known["items"]) == len(unknown["scores"]) == 5


def test_answers_are_the_exact_ranking_of_unseen_items(exported, client):
    answers = client.ask(*({"user_id": f"u{user}"} for user in range(40)), k=7)
    for user, (answer, seen) in enumerate(zip(answers, exported.seen(), strict=True)):
        expected = exported.ranking(exported.users[user], seen, 7)
        assert answer["items"] == [name for name, _ in expected]
        np.testing.assert_allclose(answer["scores"], [score for _, score in expected], rtol=1e-6)


def test_whoever_asks_is_told_what_the_answer_follows_from(client):
    new = {"id": "new", "features": {name: [1.0] * width for name, width in WIDTHS.items()}}
    user, items, popular, placed = client.ask(
        {"user_id": "u1"},
        {"user_id": "nobody", "items": ["i1", "i99"]},
        {"user_id": "nobody"},
        {"items": ["new"], "new_items": [new]},
    )
    sources = [answer["source"] for answer in (user, items, popular, placed)]
    assert sources == ["user", "items", "popularity", "items"]
    assert (items["ignored"], placed["ignored"]) == (["i99"], [])
    assert len(user["items"]) == 20


def test_a_table_in_parquet_is_answered_too(client):
    body = io.BytesIO()
    pd.DataFrame({"user_id": ["u1", "nobody"], "items": [[], ["i1"]]}).to_parquet(body)
    status, text = client.post(body.getvalue(), PARQUET)
    assert status == 200, text
    assert [row["source"] for row in json.loads(text)["predictions"]] == ["user", "items"]


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"", JSON, "valid JSON"),
        (b"{", JSON, "valid JSON"),
        (b"\xff\xfe", JSON, "valid JSON"),
        (b'{"dataframe_records": ' + b"[" * 5000 + b"]" * 5000 + b"}", JSON, "cannot be read"),
        ({}, JSON, "must be a JSON dictionary"),
        ([1], JSON, "must be a JSON dictionary"),
        ({"dataframe_records": 5}, JSON, "must be a list of records"),
        ({"dataframe_split": {"columns": ["user_id"], "data": [["a", "b"]]}}, JSON, "not a valid"),
        ({"inputs": {"user_id": {"a": {"b": [[]]}}}}, JSON, "user_id is {'b': [[]]}, must be"),
        (records(), JSON, "none of the columns"),
        (records({"user": "u1"}), JSON, "none of the columns"),
        (records({"user_id": 5}), JSON, "row 0: user_id is 5, must be a string"),
        (records({"user_id": "u1"}, {"items": [None]}), JSON, "row 1: items is None"),
        (records({"user_id": "u1"}, k=-1), JSON, "k is -1, must be an integer from 1 to 1000"),
        (records({"user_id": "u1"}, k=10**9), JSON, "k is 1000000000, must be an integer"),
        (records({"user_id": "u1"}, k="5"), JSON, "k"),
        (b'{"dataframe_records": [{"user_id": Infinity}]}', JSON, "user_id is inf"),
        (records({"new_items": [{"id": "n", "features": {"text": [1]}}]}), JSON, "list of 4 num"),
        (b'a,b\n1,2,3\n"', "text/csv", "Failed to parse"),
        (b"PAR1xx", PARQUET, "Failed to parse"),
        (b"{}", None, "content types"),
        (b"{}", "application/json; charset=latin1", "UTF-8"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(client, body, kind, reason):
    status, text = client.post(body, kind)
    assert 400 <= status < 500
    message = text if status == 415 else json.loads(text)["message"]
    assert reason in message and len(message) <= 500
    assert "Traceback" not in text and "stack_trace" not in text
    assert client.ask({"user_id": "u1"}, k=1)[0]["source"] == "user"
