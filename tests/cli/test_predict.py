"""`hap predict` labels a folder with an attribute checkpoint and ranks a gallery with any encoder."""

import errno
import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import numpy_layers, numpy_vit
from hap_jax.convert import read as reading
from hap_jax.data.sources import base
from hap_jax.data.transforms.attributes import ResizeBilinear
from hap_jax.io import checkpoint_file, picture_file
from hap_jax.models import layers
from hap_jax.pixels.normalize import normalize
from tests.convert.reference_state import family_state
from tests.io import torch_bytes

NAMES = ["hat", "bag", "boots", "scarf", "beard"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """Returns the path of a checkpoint with five attributes and random weights, for pictures of 16 x 8."""
  folder = tmp_path_factory.mktemp("attributes")
  path = folder / "official.pth"
  path.write_bytes(torch_bytes.zip_file({"model": family_state("attributes-vit", depth=1)}))
  weights = reading.read(path, grid=(4, 2))
  model = weights.facts()["model"] | {"num_heads": 2}
  description = weights.facts() | {"attribute_names": NAMES, "model": model}
  checkpoint_file.write(folder / "own", weights.variables, description)
  return folder / "own"


@pytest.fixture
def people(tmp_path):
  root = tmp_path / "people"
  (root / "more").mkdir(parents=True)
  rng = np.random.default_rng(0)
  for name in ("b.png", "a.png", "more/c.png"):
    Image.fromarray(rng.integers(0, 255, (40, 20, 3), dtype=np.uint8)).save(root / name)
  return root


def test_probabilities_equal_an_independent_numpy_forward_pass(
  checkpoint, people, tmp_path, capsys, eager_progress
):
  out = tmp_path / "out"
  assert hap(["predict", str(checkpoint), str(people), f"--out={out}", "--batch_size=8"]) == 0
  written = json.loads((out / "attributes.json").read_text())
  assert [entry["file"] for entry in written["pictures"]] == ["a.png", "b.png", "more/c.png"]
  # The expected probabilities come from the NumPy network of the conversion, which shares no code with ours.
  variables, _ = checkpoint_file.read(checkpoint)
  images = [np.asarray(Image.open(people / entry["file"])) for entry in written["pictures"]]
  images = [ResizeBilinear(size=(16, 8))({"image": image}, None)["image"] for image in images]
  stack = numpy_vit.own(variables).encoder
  epsilon = layers.LAYER_NORM_EPSILON
  image = np.asarray(normalize(np.stack(images)))
  raw = numpy_vit.encode(stack, image, num_heads=2, grids=((4, 2), (4, 2)), epsilon=epsilon)
  tokens = numpy_layers.layer_norm(raw, stack.norm, epsilon)[:, 1:].mean(axis=1)
  classifier = variables["params"]["classifier"]
  want = 1 / (1 + np.exp(-(tokens @ classifier["kernel"] + classifier["bias"])))
  got = [[entry["probability"][name] for name in NAMES] for entry in written["pictures"]]
  np.testing.assert_allclose(got, want, atol=1e-4)
  # The threshold of a present attribute is a probability of 0.5.
  for entry, row in zip(written["pictures"], want, strict=True):
    assert entry["present"] == [name for name, p in zip(NAMES, row, strict=True) if p > 0.5]
  assert cv2.imread(str(out / "attributes.png")) is not None
  captured = capsys.readouterr()
  assert "more/c.png" in captured.out
  assert re.search(r"^predict: \d of 3 pictures, \d+ %, ", captured.err, re.MULTILINE)


def test_each_task_has_its_own_arguments(checkpoint, people, tmp_path, capsys):
  """The help lists the arguments of the checkpoint's task, and an error names a missing argument."""
  path = tmp_path / "reid.pth"
  path.write_bytes(
    torch_bytes.zip_file({"model": family_state("reid-vit", grid=(16, 8)), "arch": "vit_base_patch16"})
  )
  with pytest.raises(SystemExit) as ended:
    hap(["predict", str(path), str(people), f"--out={tmp_path / 'out'}"])
  assert ended.value.code == 2
  assert "required: --gallery" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()
  for given, text in ((path, "with the trained embedding"), (checkpoint, "Label the pictures of a folder")):
    with pytest.raises(SystemExit) as ended:
      hap(["predict", str(given), "--help"])
    assert ended.value.code == 0
    assert text in " ".join(capsys.readouterr().out.split())


def test_help_reads_no_weights(checkpoint, tmp_path, capsys):
  copy = tmp_path / "own"
  shutil.copytree(checkpoint, copy)
  shutil.rmtree(copy / "state")
  (copy / "state").mkdir()
  with pytest.raises(SystemExit) as ended:
    hap(["predict", str(copy), "--help"])
  assert ended.value.code == 0
  assert "Label the pictures of a folder" in " ".join(capsys.readouterr().out.split())


def test_help_without_a_checkpoint_names_the_command_for_full_help(capsys):
  with pytest.raises(SystemExit):
    hap(["predict", "--help"])
  assert "hap predict CHECKPOINT --help" in " ".join(capsys.readouterr().out.split())


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
  assert hap(["predict", str(tmp_path / "none"), "--help"]) == 1
  assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: no such file or folder\n"


def test_a_classifier_without_attribute_names_is_refused(people, tmp_path, capsys):
  path = tmp_path / "official.pth"
  # The official files record no names, and five attributes match none of the official data sets.
  path.write_bytes(torch_bytes.zip_file({"model": family_state("attributes-vit", grid=(16, 12))}))
  assert hap(["predict", str(path), str(people), f"--out={tmp_path / 'out'}"]) == 1
  assert "5 attributes and 0 recorded names" in capsys.readouterr().err


@pytest.fixture
def roots(tmp_path):
  """Returns two folders of the same picture: "plain" is upright, "lying" has an EXIF header that turns it."""
  upright = np.random.default_rng(0).integers(0, 255, (40, 20, 3), dtype=np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6  # a viewer turns the stored pixels clockwise
  roots = {name: tmp_path / name for name in ("plain", "lying")}
  for root in roots.values():
    root.mkdir()
  Image.fromarray(upright).save(roots["plain"] / "a.png")
  Image.fromarray(np.rot90(upright)).save(roots["lying"] / "a.png", exif=exif)
  return roots


def test_pictures_are_turned_unless_exif_is_ignore(checkpoint, roots, tmp_path):
  found = {}
  for name, root, words in (
    ("plain", "plain", []),
    ("default", "lying", []),
    ("apply", "lying", ["--exif=apply"]),
    ("ignore", "lying", ["--exif=ignore"]),
  ):
    out = tmp_path / f"out-{name}"
    assert hap(["predict", str(checkpoint), str(roots[root]), f"--out={out}", "--batch_size=8", *words]) == 0
    written = json.loads((out / "attributes.json").read_text())
    assert written["exif"] == ("ignore" if name == "ignore" else "apply")
    found[name] = written["pictures"][0]["probability"]
  assert found["plain"] == found["default"] == found["apply"]
  assert found["plain"] != found["ignore"]


def test_the_query_the_gallery_and_embeddings_are_turned_alike(checkpoint, roots, tmp_path):
  words, both = ["--batch_size=8", "--feature=mean"], tmp_path / "both"
  both.mkdir()
  for name, root in roots.items():
    shutil.copy(root / "a.png", both / f"{name}.png")
  for exif, is_same in (("apply", True), ("ignore", False)):
    out = tmp_path / exif
    query = [str(roots["lying"] / "a.png"), f"--gallery={roots['plain']}", f"--exif={exif}"]
    assert hap(["predict", str(checkpoint), *query, f"--out={out}", *words]) == 0
    ranking = json.loads((out / "ranking.json").read_text())
    assert ranking["exif"] == exif
    assert (ranking["ranking"][0]["distance"] < 1e-6) == is_same
    file = tmp_path / f"{exif}.npz"
    assert hap(["embed", str(checkpoint), str(both), f"--out={file}", f"--exif={exif}", *words]) == 0
    vectors = np.load(file)["feature"]
    assert np.array_equal(*vectors) == is_same


def test_a_folder_without_a_picture_that_can_be_read_is_one_line(checkpoint, tmp_path, capsys):
  root = tmp_path / "pictures"
  root.mkdir()
  words = ["predict", str(checkpoint), str(root), f"--out={tmp_path / 'out'}", "--batch_size=8"]
  (root / "a.tif").write_bytes(b"not opened")
  assert hap(words) == 1
  line = capsys.readouterr().err
  assert line.startswith(f"error: {root}: no picture in this folder or below it; expected files .jpg")
  assert line.endswith("; 1 file left out: 1 .tif; convert them to JPEG or PNG\n")
  for name in ("b.jpg", "c.png", "d.webp"):
    (root / name).write_bytes(b"no picture")
  assert hap(words) == 1
  lines = capsys.readouterr().err.splitlines()
  assert lines[-1].startswith(
    f"error: none of the 3 records of folder can be read, starting with record 0: {root / 'b.jpg'}: "
  )
  assert len([line for line in lines if "left out" not in line]) == 1


def test_an_error_while_the_results_are_written_leaves_no_folder(
  checkpoint, people, tmp_path, monkeypatch, capsys
):
  def fill_the_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(picture_file, "write", fill_the_disk)
  before = sorted(os.listdir(tmp_path))
  words = [f"--out={tmp_path / 'out'}", "--batch_size=8"]
  for pictures in ([str(people)], [str(people / "a.png"), f"--gallery={people}"]):
    assert hap(["predict", str(checkpoint), *pictures, *words]) == 1
    error = f"error: [Errno 28] No space left on device: '{tmp_path / 'out'}'\n"
    assert capsys.readouterr().err == error
    assert sorted(os.listdir(tmp_path)) == before


@pytest.fixture
def odd_people(tmp_path):
  """Returns a folder with names that are not UTF-8 or contain control characters."""
  root = tmp_path / os.fsdecode(b"m\xfcnster")
  root.mkdir()
  rng = np.random.default_rng(0)
  for name in (b"caf\xe9.jpg", b"\xff\xfe\n\x1b[31m.png", "größe 日本.png".encode(), b"x" * 240 + b".png"):
    pixels = rng.integers(0, 255, (40, 20, 3), dtype=np.uint8)
    picture_file.write(tmp_path / "a.png", pixels)
    (tmp_path / "a.png").rename(root / os.fsdecode(name))
  return root


def read_json(path):
  """Reads a JSON file and checks that it is UTF-8."""
  return json.loads(path.read_bytes().decode("utf-8"))


def test_folder_with_names_that_are_not_utf8_is_labelled(checkpoint, odd_people, tmp_path, capsys):
  out = tmp_path / os.fsdecode(b"out\xe9")
  assert hap(["predict", str(checkpoint), str(odd_people), f"--out={out}", "--batch_size=8"]) == 0
  found = read_json(out / "attributes.json")
  names = [os.fsencode(entry["file"]) for entry in found["pictures"]]
  assert sorted(names) == sorted(os.listdir(os.fsencode(odd_people)))
  assert os.path.samefile(os.fsencode(found["folder"]), odd_people)
  assert base.read_image(out / "attributes.png").ndim == 3
  printed = capsys.readouterr()
  assert "caf?.jpg" in printed.out
  assert "größe 日本.png" in printed.out
  assert printed.err == ""


def test_a_gallery_with_names_that_are_not_utf8_is_ranked(odd_people, tmp_path, capsys):
  path = tmp_path / "official.pth"
  path.write_bytes(torch_bytes.zip_file({"model": family_state("mae", depth=1)}))
  weights = reading.read(path, grid=(4, 2))
  description = weights.facts()
  description["model"] |= {"num_heads": 2}
  checkpoint_file.write(tmp_path / "own", weights.variables, description)
  query, out = odd_people / os.fsdecode(b"caf\xe9.jpg"), tmp_path / os.fsdecode(b"out\xe9")
  words = ["predict", str(tmp_path / "own"), str(query), f"--gallery={odd_people}", f"--out={out}"]
  assert hap([*words, "--batch_size=8"]) == 0
  found = read_json(out / "ranking.json")
  assert found["ranking"][0]["file"] == query.name
  assert all((odd_people / entry["file"]).is_file() for entry in found["ranking"])
  assert os.path.samefile(os.fsencode(found["query"]), query)
  assert base.read_image(out / "ranking.png").ndim == 3
  assert "caf?.jpg" in capsys.readouterr().out
