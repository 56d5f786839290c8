"""`hap predict` on a text ReID checkpoint: sentences and pictures search folders and files of vectors."""

import functools
import json
import shutil
import types

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from hap_jax import config as config_lib
from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import read as reading
from hap_jax.convert import text_encoder, write
from hap_jax.data import word_piece
from hap_jax.inference import calibration_file, embed, gallery, vectors
from hap_jax.inference.predict import text_reid
from hap_jax.io import checkpoint_file
from hap_jax.models import bert
from hap_jax.train import initial_text
from tests.data import text_files
from tests.e2e.test_text_reid import tiny

SENTENCE = "A person in a red shirt"


def random_values(shapes):
  """Returns random arrays of given shapes. No network is compiled for them."""
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)


def write_bert(parent):
  """Writes a BERT folder with random weights for the words of the tiny captions. Returns its path."""
  captions = [text for record in text_files.make_records() for text in record["captions"]]
  words = word_piece.learn_words(captions, min_count=1)
  sizes = bert.Sizes(width=8, depth=1, num_heads=2, hidden=16, vocab_size=len(words), max_positions=16)
  ids = np.zeros((1, 4), np.int32)
  init = functools.partial(bert.Bert(**sizes.to_json()).init, jax.random.key(0))
  params = random_values(jax.eval_shape(init, ids, np.ones(1, np.int32)))["params"]
  return text_encoder.write_folder(parent, text_encoder.TextEncoder(sizes, params, tuple(words)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """Returns the path of a checkpoint with random weights. Its BERT folder does not exist any more."""
  root = tmp_path_factory.mktemp("text")
  text_files.write_rstp(root)
  folder = write_bert(root)
  task = config_lib.load("tasks", "text_reid").make(tiny("rstpreid", root, **{"text.init_from": str(folder)}))
  variables = random_values(jax.eval_shape(task.init, jax.random.key(0)))
  checkpoint_file.write(root / "run", variables, task.description.to_json())
  task.store(root / "run")
  shutil.rmtree(folder)
  return str(root / "run")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
  """Returns a folder of six pictures of random colours."""
  root = tmp_path_factory.mktemp("people")
  (root / "more").mkdir()
  for number in range(6):
    rng = np.random.default_rng(number)
    pixels = np.kron(rng.integers(0, 255, (4, 2, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(pixels).save(root / ("more" if number > 3 else "") / f"{number}.png")
  return root


@pytest.fixture(scope="module")
def stored(checkpoint, people, tmp_path_factory):
  """Returns the path of the vectors of `people`, from `hap embed`."""
  out = tmp_path_factory.mktemp("vectors") / "vectors.npz"
  assert hap(["embed", checkpoint, str(people), f"--out={out}", "--batch_size=8"]) == 0
  return out


def predict(checkpoint, out, *words):
  """Runs `hap predict` and returns the content of ranking.json."""
  assert hap(["predict", checkpoint, *words, f"--out={out}", "--batch_size=8"]) == 0
  assert cv2.imread(str(out / "ranking.png")) is not None
  return json.loads((out / "ranking.json").read_text())


def error_of(capsys, *words):
  """Runs `hap` and returns its error, one line."""
  assert hap(["predict", *words]) == 1
  lines = capsys.readouterr().err.splitlines()
  return lines[-1]


def test_a_sentence_ranks_the_pictures_of_a_folder(checkpoint, people, stored, tmp_path, capsys):
  found = predict(checkpoint, tmp_path / "out", f"--gallery={people}", "--top=4", SENTENCE)
  weights = reading.read(checkpoint)
  query, num_cut = text_reid.embed_sentences(weights, [SENTENCE], batch_size=8)
  with np.load(stored) as file:
    distance = 2 - 2 * file["feature"] @ query[0]
    paths = file["path"][np.argsort(distance)[:4]].tolist()
  assert num_cut == 0
  assert [entry["file"] for entry in found["ranking"]] == paths
  np.testing.assert_allclose(
    [entry["distance"] for entry in found["ranking"]], np.sort(distance)[:4], atol=1e-5
  )
  assert found["query"] == SENTENCE
  assert found["feature"] == "embedding"
  names = {"checkpoint", "query", "gallery", "exif", "feature", "distance", "score", "calibration", "ranking"}
  assert found.keys() == names
  assert found["calibration"] is None
  assert "cut to" not in capsys.readouterr().out


def test_many_sentences_rank_stored_vectors(checkpoint, people, stored, tmp_path, capsys):
  lines = [f"person {k} in a blue shirt" for k in range(13)] + ["a red shirt, " * 9]
  (tmp_path / "queries.txt").write_bytes("\r\n".join(lines).encode() + b"\n")
  words = [f"--queries={tmp_path / 'queries.txt'}", f"--gallery={stored}", "--top=2"]
  found = predict(checkpoint, tmp_path / "out", *words)
  assert [entry["query"] for entry in found["queries"]] == lines
  assert {len(entry["ranking"]) for entry in found["queries"]} == {2}
  assert found["folder"] == str(people)
  assert (people / found["queries"][0]["ranking"][0]["file"]).is_file()
  printed = capsys.readouterr().out
  assert "cut to 12 tokens: 1 of 14 sentences\n" in printed
  assert "2 more queries are only in" in printed
  # A query does not depend on the other queries.
  weights = reading.read(checkpoint)
  alone, _ = text_reid.embed_sentences(weights, lines[9:10], batch_size=8)
  together, _ = text_reid.embed_sentences(weights, lines, batch_size=8)
  assert together.shape == (14, 16)
  np.testing.assert_allclose(together[9], alone[0], atol=1e-6)


def test_a_query_that_names_a_file_is_a_picture_query(checkpoint, people, stored, tmp_path):
  sentence = tmp_path / "a woman in red"
  shutil.copy(people / "more" / "5.png", sentence)
  found = predict(checkpoint, tmp_path / "out", str(sentence), f"--gallery={stored}")
  assert found["ranking"][0]["file"] == "more/5.png"
  assert found["ranking"][0]["distance"] < 1e-6


@pytest.mark.parametrize(
  ("query", "text"),
  [
    ("people/Anna.JPG", "the query is 'people/Anna.JPG': no such picture; expected a sentence such as"),
    ("", "the query is empty; expected a sentence such as"),
    (" ?! ", "the query is ' ?! ', without a letter or digit"),
  ],
)
def test_a_query_that_is_no_sentence_is_an_error(checkpoint, people, tmp_path, capsys, query, text):
  line = error_of(capsys, checkpoint, query, f"--gallery={people}", f"--out={tmp_path / 'out'}")
  assert text in line
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("content", "text"),
  [
    (b"", "the file is empty"),
    (b"a red coat\n\na hat\n", "line 2 is empty"),
    (b"a red coat\n--\n", "line 2 is '--', without a letter or digit"),
    (b"anna.png\n", "line 1 is 'anna.png': a picture cannot be a query of this file"),
    (b"caf\xe9\n", "expected sentences in UTF-8, one per line"),
  ],
)
def test_a_bad_file_of_sentences_is_an_error_that_names_the_line(tmp_path, content, text):
  path = tmp_path / "queries.txt"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=text) as error:
    text_reid.read_sentences(path)
  assert str(path) in str(error.value)


def test_contradictory_arguments_are_an_error(checkpoint, people, tmp_path, capsys):
  words = [f"--gallery={people}", f"--out={tmp_path / 'out'}"]
  assert "found both: 'a hat'" in error_of(capsys, checkpoint, "a hat", "--queries=q.txt", *words)
  assert "a sentence has only an embedding" in error_of(capsys, checkpoint, "a hat", "--feature=mean", *words)
  with pytest.raises(SystemExit):
    hap(["predict", checkpoint, *words])
  assert "required: QUERY" in capsys.readouterr().err


# A calibration of sentences and pictures


def test_sentences_have_their_own_threshold(checkpoint, people, stored, tmp_path, capsys):
  file, drawn = tmp_path / "made.json", {"num_test": 64, "image_size": (40, 20), "hold_in_memory": False}
  words = [f"--set=data.synthetic_captions.{key}={value}" for key, value in drawn.items()]
  words += ["--data.source=synthetic_captions", "--far=0.1", f"--out={file}", "--set=eval_batch_size=16"]
  assert hap(["calibrate", checkpoint, *words]) == 0
  printed = capsys.readouterr().out
  # 8 persons with 8 pictures and 2 captions each.
  assert "text queries: 16 of 8 persons, 64 gallery entries; 128 pairs of one person, 896 pairs" in printed
  assert (
    "picture queries: 64 of 8 persons, 64 gallery entries; 448 pairs of one person, 3,584 pairs" in printed
  )
  queries = calibration_file.read(file).queries
  assert queries["text"].threshold != queries["picture"].threshold
  assert queries["text"].facts["camera_rule"] == "none, because the data has no cameras"
  given = [f"--gallery={stored}", f"--calibration={file}"]
  for kind, query in (("text", SENTENCE), ("picture", str(people / "0.png"))):
    found = predict(checkpoint, tmp_path / kind, query, *given)
    one = queries[kind]
    assert found["calibration"] == {"threshold": one.threshold, "far": 0.1, "prior": 0.5}
    assert [entry["passes"] for entry in found["ranking"]] == [
      entry["score"] >= one.threshold for entry in found["ranking"]
    ]
    is_there = found["ranking"][0]["passes"]
    assert found["answer"] == ("in the gallery" if is_there else "not in the gallery")
    capsys.readouterr()
    picture = str(people / found["ranking"][0]["file"])
    assert hap(["compare", checkpoint, query, picture, f"--calibration={file}", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["query_kind"] == kind
    assert compared["score"] == pytest.approx(found["ranking"][0]["score"], abs=1e-5)
    assert compared["verdict"] == ("same person" if is_there else "not the same person")


def test_a_checkpoint_that_is_calibrated_on_too_few_persons_is_an_error(checkpoint, tmp_path, capsys):
  words = ["calibrate", checkpoint, "--far=0.7", f"--out={tmp_path / 'made.json'}", "--set=eval_batch_size=8"]
  assert hap(words) == 1
  assert "text queries of rstpreid: too few persons for a calibration" in capsys.readouterr().err


# Vectors of another checkpoint, kind or folder


def rewrite(stored, out, **changes):
  """Copies the arrays of a file of vectors with changes. None leaves an array out."""
  with np.load(stored) as file:
    arrays = {**file, **changes}
  np.savez(out, **{name: array for name, array in arrays.items() if array is not None})
  return out


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    (
      {"folder": None},
      "does not record the folder of its pictures, because an earlier version",
    ),
    ({"feature": None}, "expected a file of vectors that hap embed wrote, but it has no feature"),
    ({"feature": np.zeros((5, 16), np.float32)}, "has 5 vectors of 6 pictures"),
    ({"path": np.array(["a"] * 6, object)}, r"expected a folder, or a file of vectors .*path\.npy has type"),
    ({"folder": np.array("/none")}, "/none: no such folder.*make the file again with hap embed"),
    (
      {"path": np.array(["0.png"] * 5 + ["x.png"])},
      "1 of 6 pictures are not in .* starting with x",
    ),
    (
      {"path": np.array(["0.png"] * 5 + ["../x.png"])},
      r"picture 6: the file name is '../x\.png'; expected a path below the folder",
    ),
    ({"exif": np.array("ignore")}, "was made with --exif=ignore; pass --exif=ignore here, too"),
  ],
)
def test_a_file_that_cannot_be_searched_is_an_error(stored, tmp_path, changes, text):
  path = rewrite(stored, tmp_path / "other.npz", **changes)
  with pytest.raises(ValueError, match=text) as error:
    gallery.open_gallery(types.SimpleNamespace(gallery=str(path), exif="apply"))
  assert str(path) in str(error.value)


def test_a_file_without_arrays_is_an_error(people, stored, tmp_path):
  with pytest.raises(ValueError, match="expected a folder, or a file of vectors that hap embed wrote"):
    gallery.open_gallery(types.SimpleNamespace(gallery=str(people / "0.png"), exif="apply"))
  with np.load(stored) as file:
    np.savez_compressed(tmp_path / "small.npz", **file)
  with pytest.raises(ValueError, match=r"feature\.npy is compressed"):
    gallery.open_gallery(types.SimpleNamespace(gallery=str(tmp_path / "small.npz"), exif="apply"))
  with pytest.raises(OSError, match="No such file"):
    gallery.open_gallery(types.SimpleNamespace(gallery=str(tmp_path / "none.npz"), exif="apply"))


def test_vectors_of_another_checkpoint_or_kind_are_an_error(checkpoint, stored, tmp_path):
  extractor = embed.load_extractor(checkpoint)
  found = vectors.read(stored)
  source = vectors.open_pictures(stored, found, exif="apply")
  vectors.check(stored, found, extractor, source, checkpoint)
  for array, text in (
    (np.roll(found.feature, 1, axis=0), "its vector of 0.png differs from the vector that"),
    (found.feature[:, :8], "its vectors have 8 numbers, but vectors of .* have 16"),
  ):
    other = vectors.read(rewrite(stored, tmp_path / "other.npz", feature=array))
    with pytest.raises(ValueError, match=f"{text}.* it was made with {checkpoint}: use that checkpoint"):
      vectors.check(stored, other, extractor, source, checkpoint)
  tokens = vectors.read(rewrite(stored, tmp_path / "other.npz", kind=np.array("mean")))
  with pytest.raises(ValueError, match="of the kind mean, but the query has the kind embedding"):
    vectors.check(stored, tokens, extractor, source, checkpoint)


# The frozen text encoder


def test_a_converted_checkpoint_has_its_text_encoder(checkpoint, tmp_path):
  weights = reading.read(checkpoint)
  write.write(tmp_path / "copy", weights, write.OWN)
  digest = weights.description.network["text_digest"]
  names = [path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy" / "text_encoder").iterdir()]
  assert [str(name) for name in names] == [f"text_encoder/{digest}"]
  copied = reading.read(tmp_path / "copy").description
  shutil.move(tmp_path / "copy", tmp_path / "moved")
  with pytest.raises(ValueError, match=f"digest {digest}"):
    initial_text.of_checkpoint(copied)
  found = initial_text.of_checkpoint(reading.read(tmp_path / "moved").description)
  assert found.digest == digest


def test_a_checkpoint_without_its_text_encoder_is_not_converted(checkpoint, tmp_path, capsys):
  shutil.copytree(checkpoint, tmp_path / "alone")
  shutil.rmtree(tmp_path / "alone" / "text_encoder")
  assert hap(["convert", str(tmp_path / "alone"), f"--out={tmp_path / 'out'}"]) == 1
  assert "the text encoder of the checkpoint (digest" in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ["alone"]


@pytest.mark.soak
def test_the_official_file_of_a_checkpoint_gives_its_vectors_and_rankings(
  checkpoint, people, stored, tmp_path
):
  file, back = tmp_path / "best.pth.tar", tmp_path / "back"
  assert hap(["convert", checkpoint, "--to=text-reid", f"--out={file}", "--no_real_class"]) == 0
  assert hap(["convert", str(file), f"--out={back}"]) == 0
  shutil.move(checkpoint, tmp_path / "away")  # the converted checkpoint needs nothing of the original
  try:
    vectors_path = tmp_path / "vectors.npz"
    assert hap(["embed", str(back), str(people), f"--out={vectors_path}", "--batch_size=8"]) == 0
    found = predict(str(back), tmp_path / "after", f"--gallery={vectors_path}", SENTENCE)
  finally:
    shutil.move(tmp_path / "away", checkpoint)
  with np.load(stored) as one, np.load(vectors_path) as other:
    np.testing.assert_array_equal(other["feature"], one["feature"])
  assert (
    found["ranking"] == predict(checkpoint, tmp_path / "before", f"--gallery={stored}", SENTENCE)["ranking"]
  )


def test_an_export_computes_the_embedding_of_pictures(checkpoint, people, stored, tmp_path, capsys):
  assert hap(["export", checkpoint, f"--out={tmp_path / 'out'}"]) == 0
  assert "embedding [batch, 16] float32 with unit norm" in capsys.readouterr().out
  with np.load(tmp_path / "out" / "weights.npz") as file:
    weights = dict(file)
  assert {name.split("/")[1] for name in weights} == {"encoder", "projection"}
  with np.load(stored) as file:
    paths, expected = file["path"], file["feature"]
  images = np.stack([np.asarray(Image.open(people / path).resize((16, 32), Image.BICUBIC)) for path in paths])
  program = jax.export.deserialize(bytearray((tmp_path / "out" / "encoder.jax_export").read_bytes()))
  np.testing.assert_allclose(program.call(weights, images), expected, atol=1e-5)


def test_a_description_lists_the_parts_and_no_words(checkpoint, capsys):
  assert hap(["describe", checkpoint]) == 0
  printed = capsys.readouterr().out
  assert "head (16 -> 3), lstm (139,264 parameters), projection (128 -> 16)" in printed
  assert "##" not in printed
  for verb in ("embed", "predict", "export", "evaluate"):
    assert f"hap {verb} {checkpoint} ..." in printed
