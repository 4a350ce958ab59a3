import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from egra_dist.catalog.writer import write_npy
from egra_dist.featurize.contents import Contents
from egra_dist.featurize.ranges import FEATURES, RangeStore, plan_ranges, write_places


def texts(values, kind="text"):
    ids = pa.chunked_array([pa.array([f"v{row}" for row in range(len(values))])])
    return Contents(kind, ids, "item_id", pa.array(values, pa.large_string()))


@pytest.fixture
def contents():
    return texts([f"text {row}" for row in range(10)])


def plan(contents, encoder="e", folder=None, rows=4):
    return plan_ranges(contents, encoder, folder, rows)


def digests(ranges):
    return [part.digest for part in ranges]


def test_ranges_cover_the_rows(contents):
    assert [(part.start, part.stop, len(part)) for part in plan(contents)] == [
        (0, 4, 4), (4, 8, 4), (8, 10, 2),
    ]  # fmt: skip


def test_digests_change_with_content_and_encoder_alone(contents):
    first = digests(plan(contents))
    assert first == digests(plan(replace(contents, ids=contents.ids.slice(0, 10))))
    assert not set(first) & set(digests(plan(contents, encoder="other")))
    values = contents.values.to_pylist()
    values[5] = None
    changed = digests(plan(texts(values)))
    assert [old == new for old, new in zip(first, changed, strict=True)] == [True, False, True]
    longer = digests(plan(texts([*contents.values.to_pylist(), "new"])))
    assert longer[:2] == first[:2]
    assert longer[2] != first[2]


def test_digests_of_images_follow_their_files(tmp_path):
    paths = texts(["a.png", "b.png", None], "image")
    (tmp_path / "a.png").write_bytes(b"1")
    seen = [digests(plan(paths, folder=tmp_path))]
    (tmp_path / "b.png").write_bytes(b"1")
    seen.append(digests(plan(paths, folder=tmp_path)))
    os.utime(tmp_path / "a.png", (1, 1))
    seen.append(digests(plan(paths, folder=tmp_path)))
    assert len({tuple(each) for each in seen}) == 3
    assert seen[-1] == digests(plan(paths, folder=tmp_path))


def test_store_gives_ranges_back_in_order(tmp_path, contents):
    ranges = plan(contents)
    store = RangeStore(tmp_path / "ranges")
    values = np.arange(30, dtype=np.float16).reshape(10, 3)
    for part in reversed(ranges):
        assert part not in store
        store.write(part, values[part.start : part.stop])
        assert part in store
    np.testing.assert_array_equal(np.concatenate(list(store.blocks(ranges))), values)


def test_ranges_without_vectors_get_the_width_of_the_others(tmp_path, contents):
    ranges = plan(contents)
    store = RangeStore(tmp_path / "ranges")
    for part in ranges:
        store.write(part, np.zeros((len(part), 0), np.float16))
    assert not store.has_vectors(ranges)
    store.write(ranges[1], np.ones((4, 3), np.float16))
    assert store.has_vectors(ranges)
    blocks = list(store.blocks(ranges))
    assert [block.shape for block in blocks] == [(4, 3), (4, 3), (2, 3)]
    assert {block.dtype for block in blocks} == {np.dtype(np.float16)}


def test_ranges_of_an_earlier_output_are_adopted(tmp_path, contents):
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    values = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    write_npy(earlier / FEATURES, [values], 10)
    write_places(earlier, plan(contents))

    grown = plan(texts(["new text", *(f"text {row}" for row in range(1, 10)), "newer"]))
    store = RangeStore(tmp_path / "ranges")
    store.adopt(earlier, grown)
    assert [part in store for part in grown] == [False, True, False]
    np.testing.assert_array_equal(store.read(grown[1]), values[4:8])
    store.adopt(tmp_path / "absent", grown)
