"""What was logged is on disk, whole lines are delivered once, torn ones do no harm."""

import resource

import pytest

from egra_dist.tracking.spool import Spool, SpoolWriter


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool", "run")


def logged(spool: Spool) -> list[tuple[str, int, float]]:
    return [(p.name, p.step, p.value) for p in spool.pending(10**6).points]


def test_pending_is_what_was_appended_after_the_mark(spool):
    writer = SpoolWriter(spool)
    for step in range(4):
        writer.append(step, {"a": step / 2, "b": -1.0})
    first = spool.pending(max_points=5)
    assert [(p.name, p.step) for p in first.points] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    spool.mark_delivered(first.end)
    assert logged(spool) == [("a", 2, 1.0), ("b", 2, -1.0), ("a", 3, 1.5), ("b", 3, -1.0)]
    assert not spool.is_delivered()
    spool.mark_delivered(spool.pending(100).end)
    assert spool.is_delivered()


def test_a_line_with_more_points_than_asked_for_is_not_split(spool):
    SpoolWriter(spool).append(1, {f"m{i}": 0.0 for i in range(7)})
    assert len(spool.pending(max_points=3).points) == 7


def test_replayed_steps_are_skipped_name_by_name(spool):
    first = SpoolWriter(spool)
    first.append(5, {"loss": 1.0})
    first.append(6, {"loss": 2.0, "recall": 0.1})
    first.close()
    second = SpoolWriter(spool)
    second.append(5, {"loss": 99.0, "recall": 99.0})
    second.append(6, {"loss": 99.0, "other": 3.0})
    second.append(7, {"loss": 4.0})
    assert logged(spool) == [
        ("loss", 5, 1.0),
        ("loss", 6, 2.0),
        ("recall", 6, 0.1),
        ("other", 6, 3.0),
        ("loss", 7, 4.0),
    ]


@pytest.mark.parametrize("torn", [b'{"step": 2, "ti', b'{"step": 2}\n', b"\xff\xfe\n", b"null\n"])
def test_a_torn_line_costs_only_itself(spool, torn):
    writer = SpoolWriter(spool)
    writer.append(1, {"a": 1.0})
    writer.close()
    with spool.path.open("ab") as file:
        file.write(torn)
    assert logged(spool) == [("a", 1, 1.0)]
    SpoolWriter(spool).append(2, {"a": 2.0})
    assert logged(spool) == [("a", 1, 1.0), ("a", 2, 2.0)]
    spool.mark_delivered(spool.pending(100).end)
    assert spool.is_delivered()


def test_an_incomplete_last_line_is_not_waited_for(spool):
    spool.folder.mkdir()
    spool.path.write_bytes(b'{"step": 2, "ti')
    assert spool.is_delivered()


def test_a_full_disk_is_an_error_and_costs_only_what_did_not_fit(spool):
    writer = SpoolWriter(spool)
    writer.append(1, {"a": 1.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.path.stat().st_size + 10, hard))
    try:
        for _ in range(2):
            with pytest.raises(OSError):
                writer.append(2, {"a": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.append(3, {"a": 3.0})
    assert logged(spool) == [("a", 1, 1.0), ("a", 3, 3.0)]
