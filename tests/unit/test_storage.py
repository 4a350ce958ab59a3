"""Storage on a local path; ``test_object_store.py`` has an object store."""

import pickle

import pytest

from egra_dist.artifact import build
from egra_dist.catalog.remote import open_catalog
from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.errors import UserError
from egra_dist.manifest import Manifest
from egra_dist.storage import Storage, is_uri


@pytest.fixture
def artifact(tmp_path):
    def make(folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "values.bin").write_bytes(bytes(range(256)) * 100)

    return build(tmp_path / "artifact", "thing", {}, {}, make)


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def push(storage, artifact):
    storage.push(artifact.folder, [p for p in artifact.folder.rglob("*") if p.is_file()])


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_artifact_comes_back_as_it_was(tmp_path, artifact, scheme):
    storage = Storage(f"{scheme}{tmp_path}/kept").at("artifacts/thing")
    assert storage.digest() is None
    assert not storage.fetch(tmp_path / "back")
    push(storage, artifact)
    storage = pickle.loads(pickle.dumps(storage))
    assert storage.digest() == artifact.digest
    assert not storage.fetch(tmp_path / "back", "another digest")
    assert storage.fetch(tmp_path / "back", artifact.digest)
    assert files_of(tmp_path / "back") == files_of(artifact.folder)


def test_what_was_copied_in_part_is_absent(tmp_path, artifact, monkeypatch):
    storage = Storage(f"file://{tmp_path}/kept")

    def fail(self, folder, path):
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "_upload", fail)
        with pytest.raises(UserError, match="kept: no route to host"):
            push(storage, artifact)
    assert storage.digest() is None
    push(storage, artifact)
    (tmp_path / "kept" / "deep" / "values.bin").unlink()
    (tmp_path / "kept" / "deep" / "values.bin").mkdir()  # a file that cannot be read
    (tmp_path / "kept" / "deep" / "values.bin" / "x").symlink_to(tmp_path / "nowhere")
    back = tmp_path / "back"
    try:
        storage.fetch(back, artifact.digest)
    except UserError:
        assert not back.exists()
    assert not list(tmp_path.glob(".back*"))


def test_folders_that_are_not_kept_are_removed(tmp_path, artifact):
    storage = Storage(f"file://{tmp_path}/kept")
    for name in ("step-1", "step-2", "step-3"):
        push(storage.at(name), artifact)
    storage.remove_others({"step-2"})
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-2"]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://key:secret@bucket/x", "credentials have no place"),
        ("ftp://host/x", "cannot be opened"),
    ],
)
def test_uris_that_are_refused(uri, words):
    with pytest.raises(UserError, match=words) as error:
        Storage(uri).digest()
    assert "secret" not in str(error.value)


def test_catalog_is_fetched_once(tmp_path, monkeypatch):
    settings = SynthSettings(num_items=100, num_users=100, num_interactions=900)
    made = synthesize(settings, tmp_path / "made")
    uri, cache = f"file://{tmp_path}/made", tmp_path / "cache"
    assert is_uri(uri) and not is_uri(str(made.path))
    opened = open_catalog(uri, cache)
    assert opened.path.parent == cache and opened.uri == uri
    assert opened.interactions("train")[0].tolist() == made.interactions("train")[0].tolist()
    monkeypatch.setattr(Storage, "fetch", lambda *arguments: pytest.fail("fetched again"))
    assert open_catalog(uri, cache).digest == made.digest
    with pytest.raises(UserError, match="elsewhere: not a catalog folder"):
        open_catalog(f"file://{tmp_path}/elsewhere", cache)


def test_manifest_that_is_none_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text('{"kind": 3, "x": 1}')
    with pytest.raises(UserError, match=r"manifest.json: not a readable manifest"):
        Storage(f"file://{tmp_path}").digest()
    Manifest("catalog", "a/../b").write(tmp_path)
    with pytest.raises(UserError):
        open_catalog(f"file://{tmp_path}", tmp_path / "cache")
