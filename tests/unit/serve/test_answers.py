"""What a recommender answers, against a full sort; and what it says of requests it cannot read."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from egra_dist.config import ExportSettings
from egra_dist.serve.batch import write_lists
from egra_dist.serve.data import Trained, write_data, write_seen
from egra_dist.serve.egra_model.errors import RequestError
from egra_dist.serve.egra_model.recommender import Query, Recommender
from egra_dist.serve.egra_model.requests import parse_k, parse_rows
from egra_dist.serve.explain import Explainer
from tests.exported import WIDTHS, export_at_random

NEW = {"new": {name: [1.0] * width for name, width in WIDTHS.items()}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_at_random(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def recommender(exported):
    return Recommender.open(exported.data)


def assert_ranked(answer, expected, rtol=1e-6):
    assert answer.items == [name for name, _ in expected]
    np.testing.assert_allclose(answer.scores, [score for _, score in expected], rtol=rtol)


def rows(names):
    return [int(name[1:]) for name in names]


def test_known_users_get_the_best_items_that_they_have_not_seen(exported, recommender):
    for user, seen in enumerate(exported.seen()):
        answer = recommender.answer(Query(f"u{user}"), 10)
        assert_ranked(answer, exported.ranking(exported.users[user], seen, 10))
        assert (answer.source, answer.ignored) == ("user", [])
        also = tuple(answer.items[:2])
        answer = recommender.answer(Query(f"u{user}", (*also, "i999")), 10)
        left_out = [*seen, *rows(also)]
        assert_ranked(answer, exported.ranking(exported.users[user], left_out, 10))
        assert answer.ignored == ["i999"]


def test_unknown_users_get_what_is_near_to_their_items(exported, recommender):
    answer = recommender.answer(Query("nobody", ("i5", "i8", "i999")), 100)
    mean = exported.items[[5, 8]].astype(np.float64).mean(0).astype(np.float32)
    assert_ranked(answer, exported.ranking(mean, [5, 8], 100))
    assert len(answer.items) == 58
    assert (answer.source, answer.ignored) == ("items", ["i999"])


def test_later_items_weigh_more_where_the_model_says_so(exported, recommender, tmp_path):
    query = Query("nobody", ("i5", "new", "i8", "i999"), NEW)
    vectors = [exported.items[5], expected_new_vector(exported), exported.items[8]]
    mean = (np.array([1, 2, 4]) / 7 @ np.array(vectors, np.float64)).astype(np.float32)
    decaying = replace(recommender, decay=0.5)
    # Features are exported in half precision.
    assert_ranked(decaying.answer(query, 10), exported.ranking(mean, [5, 8], 10), rtol=1e-3)

    trained = Trained(exported.catalog, exported.trained, exported.training, 0, decay=0.5)
    write_data(trained, ExportSettings(), tmp_path / "data")
    assert (Recommender.open(tmp_path / "data").decay, recommender.decay) == (0.5, 1)

    explainer = Explainer(decaying, exported.data, tmp_path, tmp_path)
    for item in explainer.explain(Query(items=("i5", "i8")), 3).items:
        own = exported.items[rows([item.item])[0]].astype(np.float64)
        shares = {near.item: near.share for near in item.neighbors}
        assert shares["i5"] == pytest.approx(exported.items[5] @ own / 3, rel=1e-5)
        assert sum(shares.values()) == pytest.approx(item.score, rel=1e-5)


def test_others_get_what_is_popular(exported, recommender):
    counts = np.bincount(exported.catalog.interactions("train")[1], minlength=60)
    order = np.lexsort((np.arange(60), -counts)).tolist()
    for query in (Query(), Query("nobody"), Query("nobody", ("i999",))):
        answer = recommender.answer(query, 7)
        assert rows(answer.items) == order[:7]
        assert answer.scores == counts[order[:7]].tolist()
        assert answer.source == "popularity"
    assert recommender.answer(Query(new_items=NEW), 7).ignored == ["new"]


def expected_new_vector(exported):
    """The ten nearest of the items that had training interactions."""
    trained = np.unique(exported.catalog.interactions("train")[1])
    cosines = np.zeros(60)
    for name in WIDTHS:
        values = exported.catalog.features(name).values.astype(np.float64)
        lengths = np.linalg.norm(values, axis=1)
        cosines += values.sum(1) / np.where(lengths > 0, lengths, 1) / WIDTHS[name] ** 0.5 / 2
    nearest = trained[np.argsort(-cosines[trained])[:10]]
    weights = np.maximum(cosines[nearest], 0)
    return weights / weights.sum() @ exported.items[nearest]


def test_new_items_are_placed_by_their_features(exported, recommender):
    vector = expected_new_vector(exported)
    answer = recommender.answer(Query(None, ("new",), NEW), 5)
    expected = exported.ranking(vector, [], 5)
    assert answer.items == [name for name, _ in expected]
    np.testing.assert_allclose(answer.scores, [score for _, score in expected], rtol=2e-3)
    assert (answer.source, answer.ignored) == ("items", [])

    seen, user = exported.seen()[4], exported.users[4]
    ranked = [*exported.ranking(user, seen, 60), ("new", user @ vector)]
    ranked.sort(key=lambda pair: -pair[1])
    answer = recommender.answer(Query("u4", (), NEW), 60)
    assert answer.items == [name for name, _ in ranked]


def test_lists_of_all_users_are_their_answers(exported, recommender, tmp_path):
    assert write_lists(exported.data, "digest", 40, 9, tmp_path) == 40
    table = pq.read_table(tmp_path).to_pydict()
    assert table["raw_id"] == [f"u{user}" for user in range(40)]
    for user in range(40):
        answer = recommender.answer(Query(f"u{user}"), 9)
        assert (table["items"][user], table["scores"][user]) == (answer.items, answer.scores)


def test_what_counts_as_seen_can_be_chosen(exported, tmp_path):
    for number, splits in enumerate((["train"], ["test", "train"], [])):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_seen(exported.catalog, splits, folder)
        starts, items = np.load(folder / "seen_starts.npy"), np.load(folder / "seen_items.npy")
        wanted = exported.seen(splits) if splits else [[]] * 40
        for user in range(40):
            assert sorted(items[starts[user] : starts[user + 1]]) == sorted(wanted[user])


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_other_indices_answer_the_same_here(exported, tmp_path, kind):
    other = export_at_random(tmp_path, settings=ExportSettings(index=kind, min_recall=1))
    assert other.facts["kind"] == kind
    approximate, exact = Recommender.open(other.data), Recommender.open(exported.data)
    for user in range(0, 40, 5):
        query = Query(f"u{user}")
        assert approximate.answer(query, 5) == exact.answer(query, 5)


def new(**features):
    return [{"id": "new", "features": features}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"user": "u1"}, "none of the columns user_id, items, new_items"),
        ({"user_id": 5}, "row 0: user_id is 5, must be a string"),
        ({"user_id": ["u1"]}, "row 0: user_id is ['u1'], must be a string"),
        ({"items": "i1"}, "row 0: items is 'i1', must be a list"),
        ({"items": ["i1", None]}, "row 0: items is None, must be a string"),
        ({"items": [["i1"]]}, "row 0: items is ['i1'], must be a string"),
        ({"items": ["i1"] * 10_001}, "row 0: items has 10001 entries, must have at most 10000"),
        ({"new_items": {"x": 1}}, "row 0: new_items is {'x': 1}, must be a list"),
        ({"new_items": ["x"]}, "must be an object with 'id' and 'features'"),
        ({"new_items": [{"id": "i1", "features": {}}]}, "item 'i1' is known to the model"),
        ({"new_items": [{"id": "n", "features": [1]}]}, "must be an object of lists by modality"),
        ({"new_items": new()}, "features are empty, must name one of 'image', 'text'"),
        ({"new_items": new(smell=[1.0])}, "features of 'smell': no such modality; there are 'im"),
        ({"new_items": new(text=[1.0])}, "'text': have shape [1], must be a list of 4 numbers"),
        ({"new_items": new(text=["a"] * 4)}, "'text': must be a list of 4 numbers"),
        ({"new_items": new(text=[[1], 2, 3, 4])}, "'text': must be a list of 4 numbers"),
        ({"new_items": new(text=[float("nan")] * 4)}, "'text': must be finite, and not all 0"),
        ({"new_items": new(text=[0] * 4)}, "'text': must be finite, and not all 0"),
    ],
)
def test_what_cannot_be_understood_is_named(recommender, row, reason):
    table = pd.DataFrame([row])
    with pytest.raises(RequestError) as error:
        for query in parse_rows(table, recommender.users, recommender.items):
            recommender.answer(query, 5)
    assert reason in str(error.value)


def test_tables_that_are_none(recommender):
    users, items = recommender.users, recommender.items
    for table, reason in (
        ([1], "input is list, must be a table"),
        (pd.DataFrame({"user_id": []}), "input has 0 rows, must have 1 to 1000"),
        (pd.DataFrame({"user_id": ["u1"] * 1001}), "input has 1001 rows"),
        (pd.DataFrame({"user_id": ["u1", 1]}), "row 1: user_id is 1, must be a string"),
    ):
        with pytest.raises(RequestError, match=reason):
            parse_rows(table, users, items)
    missing = pd.DataFrame([{"user_id": "u1"}, {"items": ["i1", "i1"]}, {"user_id": None}])
    queries = parse_rows(missing, users, items)
    assert queries == [Query("u1"), Query(None, ("i1",)), Query()]


@pytest.mark.parametrize("k", [0, -1, 1001, 2.5, "5", None, True, [1], 10**30])
def test_numbers_of_items_that_cannot_be(k):
    with pytest.raises(RequestError, match="must be an integer from 1 to 1000"):
        parse_k({"k": k})
    assert (parse_k({"k": 1000}), parse_k(None)) == (1000, 20)
