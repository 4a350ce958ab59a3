import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egra_dist import artifact
from egra_dist.artifact import (
    Manifest,
    build,
    digest_of,
    is_finished,
    partial_folder,
    read_manifest,
    write_json,
    writing,
)
from egra_dist.errors import UserError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make(folder, content="content", digest="d1"):
    with writing(folder) as partial:
        (partial / "data").write_text(content)
        Manifest("knn", digest).write(partial)


def test_a_whole_artifact_takes_its_name(tmp_path):
    folder = tmp_path / "deep" / "knn"
    make(folder)
    assert (folder / "data").read_text() == "content"
    assert read_manifest(folder, "knn") == Manifest("knn", "d1")
    assert names(folder.parent) == ["knn"]


def test_a_failing_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="died"), writing(tmp_path / "knn") as partial:
        (partial / "half").write_text("half")
        raise RuntimeError("died")
    assert names(tmp_path) == []


def test_a_failing_write_leaves_the_earlier_artifact(tmp_path):
    make(tmp_path / "knn", "earlier")
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "knn"):
        raise KeyboardInterrupt
    assert (tmp_path / "knn" / "data").read_text() == "earlier"
    assert names(tmp_path) == ["knn"]


def test_a_later_artifact_replaces_the_whole_earlier_one(tmp_path):
    make(tmp_path / "knn", "earlier")
    (tmp_path / "knn" / "only earlier").touch()
    make(tmp_path / "knn", "later")
    assert names(tmp_path / "knn") == ["data", "manifest.json"]
    assert (tmp_path / "knn" / "data").read_text() == "later"
    assert names(tmp_path) == ["knn"]


def test_what_a_killed_process_left_does_not_get_in(tmp_path):
    stale = partial_folder(tmp_path / "knn")
    stale.mkdir()
    (stale / "stale").touch()
    make(tmp_path / "knn")
    assert names(tmp_path / "knn") == ["data", "manifest.json"]


def test_keep_partial_goes_on_where_the_last_attempt_failed(tmp_path):
    folder = tmp_path / "knn"
    with pytest.raises(RuntimeError), writing(folder, keep_partial=True) as partial:
        (partial / "block-0").touch()
        raise RuntimeError
    assert not folder.exists()
    with writing(folder, keep_partial=True) as partial:
        assert names(partial) == ["block-0"]
        (partial / "block-1").touch()
    assert names(folder) == ["block-0", "block-1"]
    assert names(tmp_path) == ["knn"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_the_users_to_mend(tmp_path, number):
    with pytest.raises(UserError, match=os.strerror(number)), writing(tmp_path / "knn"):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == []


def test_another_os_error_is_not_hidden(tmp_path):
    with pytest.raises(ConnectionResetError), writing(tmp_path / "knn"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


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
    assert not is_finished(tmp_path, "knn", "d")


def test_no_manifest(tmp_path):
    with pytest.raises(UserError, match="not a knn folder"):
        read_manifest(tmp_path, "knn")


def test_finished_means_the_same_digest(tmp_path):
    make(tmp_path / "knn", digest="d1")
    assert is_finished(tmp_path / "knn", "knn", "d1")
    assert not is_finished(tmp_path / "knn", "knn", "d2")
    assert not is_finished(tmp_path / "knn", "catalog", "d1")


def test_the_digest_of_a_recipe_is_the_same_everywhere_and_always():
    """A changed value here makes every artifact that users have on disk stale."""
    recipe = {"k": 10, "weight": "binary"}, {"vectors": "ab"}
    assert digest_of("merge", *recipe) == "72b6065627536394"
    assert digest_of("knn", *recipe) == "d36b76098d3da2e3"


def test_a_revision_makes_only_its_kind_stale(monkeypatch):
    kinds = ("knn", "merge")
    before = [digest_of(kind, {}, {}) for kind in kinds]
    monkeypatch.setitem(artifact.REVISIONS, "knn", 99)
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


def test_json_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"recall_at_20": 0.1})
    with pytest.raises(TypeError):
        write_json(path, {"recall_at_20": object()})
    assert json.loads(path.read_text()) == {"recall_at_20": 0.1}


def test_build_makes_each_recipe_once(tmp_path):
    made = []

    def count(folder):
        made.append(folder)
        return {"num_edges": 3}

    def build_with(k):
        return build(tmp_path / f"knn-{k}", "knn", {"k": k}, {"vectors": "a"}, count)

    first, again, other = build_with(10), build_with(10), build_with(5)
    assert len(made) == 2
    assert first == again != other
    assert first.manifest.counts["num_edges"] == 3
    assert first.digest == digest_of("knn", {"k": 10}, {"vectors": "a"})
    assert first.seconds >= 0


def test_build_replaces_what_was_made_from_another_recipe(tmp_path):
    folder = tmp_path / "knn"
    build(folder, "knn", {"k": 10}, {}, lambda partial: (partial / "ten").touch())
    build(folder, "knn", {"k": 5}, {}, lambda partial: (partial / "five").touch())
    assert names(folder) == ["five", "manifest.json"]


def test_build_goes_on_in_what_a_resumable_step_left(tmp_path):
    folder, seen = tmp_path / "knn", []

    def fail_once(partial):
        seen.append(names(partial))
        (partial / f"block-{len(seen)}").touch()
        if len(seen) == 1:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build(folder, "knn", {}, {}, fail_once, resumable=True)
    build(folder, "knn", {}, {}, fail_once, resumable=True)
    assert seen == [[], ["block-1"]]
