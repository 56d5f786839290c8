"""A real video becomes people, joints, a pre-trained encoder and a ranked list.

The video is vtest.avi of Debian's package opencv-doc, 795 frames of a surveillance camera. It is not part of
the project, because its terms are not known. Run

  python -m pytest -m soak tests/soak/test_real_video.py --video=vtest.avi --movenet=DIR --pictures=DIR

--demo=WORKDIR names the workdir of `make demo`. Without it, the demo is trained first. The pictures of the
test are copied to the folder of --pictures, to be looked at.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from hap_jax.cli.__main__ import main as hap
from hap_jax.data import pose_parts
from hap_jax.train.report import read_metrics
from tests.soak import killed_parts
from tests.soak.test_demo_verdict import run_demo

EVERY, STEPS, NUM_VAL = 5, 200, 64
ROWS = 100  # frames of a part


@pytest.fixture(scope="module")
def video(request):
  path = request.config.getoption("--video")
  if not path:
    pytest.skip("no video: --video=vtest.avi (Debian's package opencv-doc)")
  return path


@pytest.fixture(scope="module")
def people(video, movenet_weights, tmp_path_factory):
  """Returns the output of `hap crop`, which was killed twice and ended as two shards."""
  folder = tmp_path_factory.mktemp("people")
  model = movenet_weights / "movenet-multipose.json"
  words = ["crop", video, f"--model={model}", f"--every={EVERY}"]
  killed_parts.check_kills(ROWS, words, folder / "killed", folder / "whole")
  return folder / "whole"


@pytest.fixture(scope="module")
def encoder(people, request, tmp_path_factory):
  """Returns the workdir of a pre-training on the people of the video, which starts from the demo."""
  demo, workdir = request.config.getoption("--demo"), tmp_path_factory.mktemp("runs") / "video"
  if not demo:
    demo = tmp_path_factory.mktemp("runs") / "demo"
    run_demo(demo)
  run_demo(
    workdir,
    "--config.data.source=posed_folder",
    f"--config.data.root={people / 'pictures'}",
    f"--config.data.posed_folder.poses={people}",
    f"--config.data.num_val={NUM_VAL}",
    f"--config.init_from={demo}",
    f"--config.total_steps={STEPS}",
    "--config.eval_every=50",
    "--config.panel_every=200",
    "--config.log_every=20",
    "--config.learned_ratio=0",
  )
  return workdir


@pytest.mark.soak
def test_people_are_found_in_all_parts_of_the_video(people):
  summary = json.loads((people / "poses.json").read_text())
  assert len(summary["parts"]) == 8
  assert summary["counts"]["unreadable"] == 0
  assert all(count > 40 for _, count in summary["parts"])  # 20 frames with two to six people
  assert summary["statistics"]["joints_inside"] > 0.98
  parts = [pose_parts.read_part(path, frame=("i", 1), box=("f", 2)) for path in people.glob("poses-*.npz")]
  assert sorted({int(frame) for part in parts for frame in part["frame"]}) == list(range(0, 795, EVERY))


@pytest.mark.soak
def test_joints_of_the_crops_by_thunder_agree_with_those_of_multipose(people, movenet_weights, tmp_path):
  """Two models, one of them on whole pictures, find most joints of a person at the same places."""
  model, out = movenet_weights / "movenet-thunder.json", tmp_path / "poses"
  assert hap(["extract_poses", str(model), str(people / "pictures"), f"--out={out}", "--no_flip"]) == 0
  of_crop, of_thunder = (pose_parts.open_poses(folder, "") for folder in (people, out))
  rows = {name: i for i, name in enumerate(of_crop.names)}
  distances = []
  for i, name in enumerate(of_thunder.names):
    one, other = of_thunder.keypoints(i), of_crop.keypoints(rows[name])
    distances.append(np.linalg.norm(one[5:, :2] - other[5:, :2], axis=1) / of_thunder.image_size[i].max())
  assert np.mean(np.concatenate(distances) < 0.1) > 0.8


@pytest.mark.soak
def test_pre_training_on_the_people_goes_on_from_the_demo(encoder):
  scores = [row["val_ratio"] for row in read_metrics(encoder) if "val_ratio" in row]
  assert len(scores) == STEPS // 50
  assert scores[-1] < scores[0]


@pytest.mark.soak
def test_a_search_finds_pictures_of_the_same_moment(encoder, people, request, tmp_path):
  """The nearest pictures of most people are of the same person a moment before or after."""
  vectors, found = tmp_path / "vectors.npz", tmp_path / "found"
  assert hap(["embed", str(encoder), str(people / "pictures"), f"--out={vectors}"]) == 0
  query = people / "pictures" / "f00000400-0.jpg"
  assert hap(["predict", str(encoder), str(query), f"--gallery={vectors}", f"--out={found}"]) == 0
  with np.load(vectors) as file:
    feature, paths = file["feature"], file["path"].tolist()
  frames = np.array([int(path[1:9]) for path in paths])
  similarity = feature @ feature.T
  similarity[frames[:, None] == frames] = -np.inf  # another person of the same frame, or the person itself
  nearest = np.abs(frames[similarity.argmax(axis=1)] - frames)
  assert np.median(nearest) < 80  # 25 were measured. A random picture is 235 frames away
  if folder := request.config.getoption("--pictures"):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(found, folder / "found", dirs_exist_ok=True)
    shutil.copytree(encoder / "panels", folder / "panels", dirs_exist_ok=True)
    shutil.copy(people / "sheet.jpg", folder)
