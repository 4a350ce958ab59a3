import pytest
from hypothesis import given
from hypothesis import strategies as st

from egra_dist import manifest
from egra_dist.errors import UserError
from egra_dist.manifest import digest_of, read_manifest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{half", "not a readable manifest"),
        ("[1, 2]", "not a readable manifest"),
        ('{"kind": "knn"}', "not a readable manifest"),
        ('{"kind": "catalog", "digest": "d"}', "kind is 'catalog', expected 'knn'"),
        ('{"kind": "knn", "digest": "d", "schema": 99}', "schema is 99, this version reads"),
    ],
)
def test_a_bad_manifest_names_its_file(tmp_path, content, word):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError) as caught:
        read_manifest(tmp_path, "knn")
    assert word in str(caught.value)
    assert "manifest.json" in str(caught.value)


def test_no_manifest(tmp_path):
    with pytest.raises(UserError, match="not a knn folder"):
        read_manifest(tmp_path, "knn")


def test_the_digest_of_a_recipe_is_the_same_everywhere_and_always():
    """A changed value here makes every artifact that users have on disk stale."""
    recipe = {"k": 10, "weight": "binary"}, {"vectors": "ab"}
    assert digest_of("merge", *recipe) == "72b6065627536394"
    assert digest_of("knn", *recipe) == "d36b76098d3da2e3"


def test_a_revision_makes_only_its_kind_stale(monkeypatch):
    kinds = ("knn", "merge")
    before = [digest_of(kind, {}, {}) for kind in kinds]
    monkeypatch.setitem(manifest.REVISIONS, "knn", 99)
    knn, merge = (digest_of(kind, {}, {}) for kind in kinds)
    assert knn != before[0]
    assert merge == before[1]


@given(st.dictionaries(st.text(), json_values))
def test_the_digest_does_not_depend_on_the_order_of_settings(settings):
    reverse = dict(reversed(settings.items()))
    assert digest_of("knn", settings, {}) == digest_of("knn", reverse, {})


def test_the_digest_depends_on_everything():
    recipes = [
        ("knn", {"k": 10}, {"vectors": "a"}),
        ("graph", {"k": 10}, {"vectors": "a"}),
        ("knn", {"k": 11}, {"vectors": "a"}),
        ("knn", {"k": 10}, {"vectors": "b"}),
        ("knn", {"k": 10}, {"others": "a"}),
    ]
    assert len({digest_of(*recipe) for recipe in recipes}) == len(recipes)
