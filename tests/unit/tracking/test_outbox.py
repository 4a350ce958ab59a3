"""Files wait until they have arrived, whatever happens to the upload."""

import pytest

from egra_dist.tracking.outbox import Outbox


def contents(folder):
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


def put(outbox, path, text):
    outbox.put("key", path, lambda file: file.write_text(text))


def test_a_failed_upload_is_tried_again_with_what_came_meanwhile(tmp_path):
    outbox = Outbox(tmp_path)
    put(outbox, "plan/a.json", "1")
    put(outbox, "b.txt", "2")

    def fail(folder):
        put(outbox, "b.txt", "newer")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        outbox.deliver("key", fail)
    uploads = []
    for _ in range(2):
        outbox.deliver("key", lambda folder: uploads.append(contents(folder)))
    assert uploads == [{"plan/a.json": "1", "b.txt": "newer"}]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_upload_is_tried_again_although_nothing_is_new(tmp_path):
    put(Outbox(tmp_path), "a.txt", "1")

    def die(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Outbox(tmp_path).deliver("key", die)
    uploads = []
    Outbox(tmp_path).deliver("key", lambda folder: uploads.append(contents(folder)))
    assert uploads == [{"a.txt": "1"}]
