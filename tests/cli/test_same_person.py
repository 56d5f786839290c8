"""From the scores of drawn people to a calibration, and its use in predict, compare, convert and export."""

import contextlib
import hashlib
import io
import json
import shutil

import cv2
import jax
import pytest
from PIL import Image

from configs import finetune_reid_demo
from hap_jax import config as config_lib
from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import read as reading
from hap_jax.convert import write
from hap_jax.data.sources import folder, synthetic
from hap_jax.inference import calibration_file, embed
from hap_jax.io import checkpoint_file
from hap_jax.metrics import retrieval, verification
from hap_jax.models import vit
from tests.cli.test_predict_text import random_values

DRAWN = {"num_train": 16, "num_test": 160, "image_size": (40, 20)}  # 20 persons for the test
TINY = {"eval_batch_size": 40, "model.image_size": (32, 16), "model.scan": True, "panel_rows": 2}
TINY |= {"batch_size": 8}
TINY |= {f"data.synthetic.{key}": value for key, value in DRAWN.items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """Returns the workdir of a ReID run with random weights. It has no calibration."""
  config = finetune_reid_demo.get_config()
  config.update_from_flattened_dict(TINY)
  config = config_lib.finalize(config)
  with pytest.MonkeyPatch.context() as patched:  # the checkpoint records these sizes
    patched.setitem(vit.VARIANTS, config.model.variant, vit.Variant(32, 2, 2))
    task = config_lib.load("tasks", config.task).make(config)
  variables = random_values(jax.eval_shape(task.init, jax.random.key(0)))
  workdir = tmp_path_factory.mktemp("run") / "work"
  description = {**task.description.to_json(), "step": 7}
  checkpoint_file.write(workdir / "checkpoints" / "7", variables, description)
  return workdir


@pytest.fixture(scope="module")
def calibrated(checkpoint, tmp_path_factory):
  """Returns (a copy of the workdir with a calibration, the printed lines of hap calibrate)."""
  workdir = tmp_path_factory.mktemp("calibrated") / "work"
  shutil.copytree(checkpoint, workdir)
  with contextlib.redirect_stdout(io.StringIO()) as printed:
    assert hap(["calibrate", str(workdir), "--far=0.01", "--prior=0.2"]) == 0
  return workdir, printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def people(tmp_path_factory):
  """Returns a folder of 18 gallery pictures of three test persons, and a query picture of the first one."""
  root = tmp_path_factory.mktemp("people")
  (root / "gallery").mkdir()
  for split, count in (("gallery", 18), ("query", 1)):
    source = synthetic.open_source(split=split, **DRAWN)
    for i in range(count):
      name = f"gallery/{i:02d}.png" if split == "gallery" else "query.png"
      Image.fromarray(source[i]["image"]).save(root / name)
  return root


def files_of(folder):
  return {
    path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
    for path in folder.rglob("*")
    if path.is_file()
  }


def run(capsys, *words):
  """Runs `hap`. Returns its output."""
  assert hap([str(word) for word in words]) == 0, capsys.readouterr().err
  return capsys.readouterr().out


def error_of(capsys, *words):
  """Runs `hap` and returns its error, one line."""
  assert hap([str(word) for word in words]) == 1
  lines = capsys.readouterr().err.splitlines()
  assert lines[-1].startswith("error: ")
  return lines[-1]


def test_evaluate_measures_thresholds_and_draws_them(checkpoint, tmp_path, capsys):
  printed = run(capsys, "evaluate", checkpoint, "--verify", "--prior=0.2", f"--out={tmp_path / 'out'}")
  assert (
    "40 of 20 persons, 120 gallery entries; 200 pairs of one person, 4,560 pairs of two persons" in printed
  )
  assert "TAR at FAR 0.001    not measured: needs 10,000 pairs of two persons, found 4,560" in printed
  found = json.loads((tmp_path / "out" / "scores.json").read_text())["verification"]["picture"]
  assert (found["genuine_pairs"], found["impostor_pairs"]) == (200, 4560)
  assert found["calibration"]["prior"] == 0.2
  assert cv2.imread(str(tmp_path / "out" / "verification_picture.png")) is not None
  # The same numbers from vectors of the same pictures, through the function for plain arrays.
  extractor = embed.load_extractor(checkpoint)
  sides = [synthetic.open_source(split=split, **DRAWN) for split in ("query", "gallery")]
  vectors = [embed.extract(extractor, source, batch_size=40)[0] for source in sides]
  ids = [source.columns[name] for name in ("pid", "camid") for source in sides]
  expected = verification.evaluate(*vectors, *ids)
  assert found["eer"]["value"] == pytest.approx(expected.eer.value, abs=1e-3)
  at = found["tar_at_far"][0]
  assert at["threshold"] == pytest.approx(expected.points[0.01].threshold, abs=1e-5)
  assert at["tar"]["value"] == pytest.approx(expected.points[0.01].tar.value, abs=0.02)


def test_a_calibration_is_beside_the_weights_and_changes_no_file(checkpoint, calibrated, capsys):
  workdir, lines = calibrated
  file = workdir / "checkpoints" / "7" / "calibration.json"
  after = files_of(workdir)
  del after[file.relative_to(workdir)]
  assert after == files_of(checkpoint)
  assert f"written: {file}" in lines
  found = calibration_file.read(file)
  one = found.queries["picture"]
  assert (found.feature, found.data, one.far, one.prior) == ("embedding", "synthetic", 0.01, 0.2)
  assert one.facts["camera_rule"] == "pairs of one person under one camera do not count"
  assert one.facts["at_threshold"]["far"]["value"] <= 0.01
  assert f"{file} exists: pass --force" in error_of(capsys, "calibrate", workdir)
  # On the same data, the threshold has the rates of its calibration.
  printed = run(capsys, "evaluate", workdir, "--verify")
  shares = [f"{at[name]['value']:.4f}" for at in [one.facts["at_threshold"]] for name in ("far", "tar")]
  here = printed.partition("of the calibration on synthetic (FAR 0.01, TAR")[2].splitlines()[1]
  assert all(f"{name} {value}" in here for name, value in zip(("FAR", "TAR"), shares, strict=True))


def test_predict_says_which_entries_pass_and_whether_the_person_is_there(
  calibrated, people, tmp_path, capsys
):
  workdir, _ = calibrated
  one = calibration_file.read(workdir / "checkpoints" / "7" / "calibration.json").queries["picture"]
  words = ["predict", workdir, people / "query.png", f"--gallery={people / 'gallery'}", "--batch_size=8"]
  printed = run(capsys, *words, f"--out={tmp_path / 'out'}")
  found = json.loads((tmp_path / "out" / "ranking.json").read_text())
  assert found["calibration"] == {"threshold": one.threshold, "far": 0.01, "prior": 0.2}
  for entry in found["ranking"]:
    assert entry["score"] == pytest.approx(1 - entry["distance"] / 2, abs=1e-5)
    assert entry["passes"] == (entry["score"] >= one.threshold)
    assert entry["probability"] == pytest.approx(one.curve.probability(entry["score"], 0.2), abs=1e-3)
  is_there = found["ranking"][0]["passes"]
  assert found["answer"] == ("in the gallery" if is_there else "not in the gallery")
  assert f"answer: {found['answer']} (threshold {one.threshold:.6f}, FAR 0.01)" in printed
  # A threshold above all scores of the gallery.
  content = calibration_file.read(workdir / "checkpoints" / "7" / "calibration.json")
  values = json.loads((workdir / "checkpoints" / "7" / "calibration.json").read_text())
  values["queries"]["picture"]["threshold"] = 1.5
  (tmp_path / "strict.json").write_text(json.dumps(values))
  assert content.weights == values["weights"]
  strict = [f"--calibration={tmp_path / 'strict.json'}", f"--out={tmp_path / 'strict'}"]
  assert "answer: not in the gallery (threshold 1.5" in run(capsys, *words, *strict)
  found = json.loads((tmp_path / "strict" / "ranking.json").read_text())
  assert found["answer"] == "not in the gallery"
  assert not any(entry["passes"] for entry in found["ranking"])
  # Without a calibration, there is only the score.
  printed = run(capsys, *words, "--calibration=none", f"--out={tmp_path / 'none'}")
  assert "no calibration for picture queries, so there is neither a probability nor a threshold" in printed
  assert f"make it with hap calibrate {workdir}" in printed
  found = json.loads((tmp_path / "none" / "ranking.json").read_text())
  assert found["calibration"] is None
  assert found["ranking"][0].keys() == {"rank", "file", "distance", "score"}
  assert "answer" not in found


def test_compare_prints_score_probability_and_verdict(calibrated, people, capsys):
  workdir, _ = calibrated
  query = people / "query.png"
  same = json.loads(run(capsys, "compare", workdir, query, query, "--json"))
  assert same["score"] == 1
  assert same["passes"] is True
  assert same["verdict"] == "same person"
  found = json.loads(run(capsys, "compare", workdir, query, people / "gallery" / "17.png", "--json"))
  extractor = embed.load_extractor(workdir)
  vectors, _ = embed.extract(
    extractor, folder.open_paths([query, people / "gallery" / "17.png"]), batch_size=8
  )
  expected = retrieval.rank_list(vectors[0], vectors[1:], k=1).score[0, 0]
  assert found["score"] == pytest.approx(expected, abs=1e-5)
  one = calibration_file.read(workdir / "checkpoints" / "7" / "calibration.json").queries["picture"]
  assert found["verdict"] == ("same person" if found["score"] >= one.threshold else "not the same person")
  assert found["probability"] == pytest.approx(one.curve.probability(found["score"], 0.2), abs=1e-3)


def test_compare_without_a_calibration_gives_the_score_alone(checkpoint, people, capsys):
  query = people / "query.png"
  printed = run(capsys, "compare", checkpoint, query, query, "--feature=mean").splitlines()
  assert printed == [
    "score        1.000000",
    "no calibration for picture queries, so there is neither a probability nor a threshold",
  ]
  (people / "broken.png").write_bytes(b"no picture")
  assert "broken.png" in error_of(capsys, "compare", checkpoint, query, people / "broken.png")
  (people / "broken.png").unlink()
  assert "none.png: no such picture" in error_of(capsys, "compare", checkpoint, query, people / "none.png")


def test_a_calibration_for_other_weights_or_another_feature_is_refused(calibrated, people, tmp_path, capsys):
  workdir, _ = calibrated
  query = people / "query.png"
  line = error_of(capsys, "compare", workdir, query, query, "--feature=mean")
  assert (
    "was made for the feature embedding, but the scores are of the feature mean: set --feature=embedding"
    in line
  )
  copy = tmp_path / "work"
  shutil.copytree(workdir, copy)
  variables, description = checkpoint_file.read(copy)
  variables["params"]["encoder"]["pos_embed"] = variables["params"]["encoder"]["pos_embed"] + 1
  other = tmp_path / "other"
  checkpoint_file.write(other, variables, description)
  shutil.copy(copy / "checkpoints" / "7" / "calibration.json", other)
  for words in (["compare", other, query, query], ["evaluate", other, "--verify"]):
    assert f"{other / 'calibration.json'}: was made for other weights than {other}" in error_of(
      capsys, *words
    )


def test_data_with_too_few_pairs_or_persons_and_wrong_options_are_errors(checkpoint, tmp_path, capsys):
  words = ["calibrate", checkpoint, f"--out={tmp_path / 'made.json'}"]
  line = error_of(capsys, *words)
  assert "--far=0.001 needs 10,000 pairs of two persons, but synthetic has 4,560 for picture queries" in line
  assert "a FAR of at least 0.0022" in line
  assert "--far=0: expected a number above 0" in error_of(capsys, *words, "--far=0")
  for verb in (words, ["evaluate", checkpoint, "--verify"]):
    assert "--prior=1: expected a probability above 0 and below 1" in error_of(capsys, *verb, "--prior=1")
  assert "--prior=0.5 needs --verify" in error_of(capsys, "evaluate", checkpoint, "--prior=0.5")
  assert not (tmp_path / "made.json").exists()


def test_convert_and_export_copy_the_calibration(calibrated, people, tmp_path, capsys):
  workdir, _ = calibrated
  source = calibration_file.read(workdir / "checkpoints" / "7" / "calibration.json")
  file, program = tmp_path / "reid.pth", tmp_path / "program"
  copy = tmp_path / "reid.pth.calibration.json"
  printed = run(capsys, "convert", workdir, f"--out={file}", "--to=reid-vit", "--no_real_class")
  assert f"calibration: {copy}" in printed
  assert calibration_file.read(copy).queries == source.queries
  query = people / "query.png"
  assert json.loads(run(capsys, "compare", file, query, query, "--json"))["verdict"] == "same person"
  assert "calibration.json: the score of two pictures is" in run(
    capsys, "export", workdir, f"--out={program}"
  )
  assert calibration_file.read(program / "calibration.json") == source
  assert "`calibration.json`" in (program / "README.md").read_text()


def test_a_calibration_is_copied_only_to_weights_with_the_same_outputs(calibrated, tmp_path):
  workdir, _ = calibrated
  weights = reading.read(workdir)
  write.write(tmp_path / "own", weights, write.OWN)
  line = calibration_file.carry(workdir, tmp_path / "own")
  assert line == f"calibration: {tmp_path / 'own' / 'calibration.json'}"
  assert calibration_file.find("", tmp_path / "own", reading.read(tmp_path / "own")) is not None
  write.write(tmp_path / "wide", write.regrid(weights, (4, 3))[0], write.OWN)
  assert "not copied, because the grid has changed" in calibration_file.carry(workdir, tmp_path / "wide")
  write.write(tmp_path / "encoder.pth", weights, "hap")
  line = calibration_file.carry(workdir, tmp_path / "encoder.pth")
  assert f"not copied, because {tmp_path / 'encoder.pth'} is for the task pretrain" in line
  assert calibration_file.carry(tmp_path / "wide", tmp_path / "own") == ""


GOOD = {
  "format": 1,
  "weights": "0" * 64,
  "feature": "embedding",
  "data": "synthetic",
  "date": "2025-01-31",
  "version": "0.2.0",
  "queries": {
    "text": {
      "threshold": 0.5,
      "far": 0.001,
      "tar": 0,
      "prior": 0.5,
      "curve": {"method": "platt", "score": [-1, 1], "log_ratio": [-3.5, 4]},
    }
  },
}
BAD = {
  "": ([], '"format" is .*, expected 1'),
  "format": (2, '"format" is 2, expected 1'),
  "weights": (None, '"weights" is None, expected a text'),
  "queries": ({}, r'"queries" has the keys \[\], expected picture and text'),
  "queries.other": ({}, '"queries" has the keys .*other'),
  "queries.text": ([1], r'"text" is \[1\], expected an object'),
  "queries.text.threshold": (float("nan"), '"threshold" is nan, expected a finite number'),
  "queries.text.far": (1, '"far" is 1.0, expected a number between 0 and 1'),
  "queries.text.tar": (True, '"tar" is True, expected a finite number'),
  "queries.text.prior": (10**400, '"prior" is .*, expected a finite number'),
  "queries.text.curve.method": ("guess", "\"method\" is 'guess', expected isotonic or platt"),
  "queries.text.curve.score": ([1, -1], 'the numbers of "score" do not ascend'),
  "queries.text.curve.log_ratio": ([1], '"score" has 2 numbers and "log_ratio" 1'),
}


@pytest.mark.parametrize("key", BAD)
def test_a_file_of_another_form_is_an_error_that_names_the_key(key, tmp_path):
  path = tmp_path / "calibration.json"
  path.write_text(json.dumps(GOOD))
  found = calibration_file.read(path)
  calibration_file.write(path, found)
  assert calibration_file.read(path) == found
  value, message = BAD[key]
  content = json.loads(json.dumps(GOOD))
  *parents, last = key.split(".")
  place = content
  for parent in parents:
    place = place[parent]
  if key:
    place[last] = value
  path.write_text(json.dumps(content if key else value))
  with pytest.raises(ValueError, match=message) as error:
    calibration_file.read(path)
  assert str(error.value).startswith(f"{path}: not a calibration that hap calibrate wrote")


def test_a_file_that_is_not_json_is_an_error(tmp_path):
  for content in (b"{", b"[" * 100_000, b"\xff"):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ValueError, match="not a calibration that hap calibrate wrote"):
      calibration_file.read(tmp_path / "c.json")


def test_the_digest_names_the_weights_and_not_their_container(calibrated, tmp_path):
  workdir, _ = calibrated
  variables, description = checkpoint_file.read(workdir)
  checkpoint_file.write(tmp_path / "again", variables, {**description, "step": 8})
  digests = [calibration_file.digest(reading.read(path)) for path in (workdir, tmp_path / "again")]
  assert digests[0] == digests[1]
