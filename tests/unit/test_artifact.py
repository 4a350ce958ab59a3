import errno
import os

import pytest

from egra_dist.artifact import build, is_finished, partial_folder, writing
from egra_dist.errors import UserError
from egra_dist.manifest import Manifest, digest_of, read_manifest


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


def test_finished_means_the_same_digest(tmp_path):
    make(tmp_path / "knn", digest="d1")
    assert is_finished(tmp_path / "knn", "knn", "d1")
    assert not is_finished(tmp_path / "knn", "knn", "d2")
    assert not is_finished(tmp_path / "knn", "catalog", "d1")
    (tmp_path / "knn" / "manifest.json").write_text("{half")
    assert not is_finished(tmp_path / "knn", "knn", "d1")


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
