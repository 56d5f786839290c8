"""Person ReID from the official data layouts to scores, pictures and checkpoints."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from configs import finetune_reid_demo
from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.data.sources import synthetic
from hap_jax.io import checkpoint_file, checkpoint_list
from hap_jax.tasks import pretrain as pretrain_task
from hap_jax.tasks import reid as reid_task
from hap_jax.train.report import read_metrics
from tests import damage
from tests.convert.reference_state import family_state
from tests.data import luperson_files
from tests.io import torch_bytes
from tests.recorded import record

pytestmark = pytest.mark.usefixtures("small_model")

TINY = {
  "total_steps": 2,
  "batch_size": 8,
  "log_every": 1,
  "save_every": 1,
  "eval_every_epochs": 1000,
  "eval_batch_size": 8,
  "panel_rows": 2,
  "model.image_size": (32, 16),
  "model.scan": True,  # compiles faster
  "model.remat": "none",  # compiles faster
}
# (person, camera, number) of each picture. Two persons are for training, two others for retrieval. One query
# has a gallery picture from its own camera, which must not count as a match.
TRAIN = [(p, c, n) for p in (2, 7) for c in (1, 2) for n in (0, 1)]
QUERY = [(3, 1, 0), (5, 2, 0)]
GALLERY = [(3, 1, 1), (3, 2, 0), (5, 1, 0), (5, 3, 0)]


def market_name(pid, camid, number):
  return f"{pid:04d}_c{camid}s1_{number:06d}_00.jpg"


def market_layout():
  sides = {"bounding_box_train": TRAIN, "query": QUERY, "bounding_box_test": GALLERY}
  return [(f"{folder}/{market_name(*ids)}", ids) for folder, side in sides.items() for ids in side], {}


def msmt17_layout(train_folder, test_folder):
  def path(folder, number, ids):
    _, camid, n = ids
    return f"{folder}/{number:04d}/{number:04d}_{n:03d}_{camid:02d}_0303morning_{n:04d}_0.jpg"

  # In the released data set, the persons of each set are numbered from 0.
  number = {2: 0, 7: 1, 3: 0, 5: 1}
  sides = {"train": TRAIN[:6], "val": TRAIN[6:], "query": QUERY, "gallery": GALLERY}
  pictures, lists = [], {}
  for name, side in sides.items():
    folder = train_folder if name in ("train", "val") else test_folder
    paths = [path(folder, number[ids[0]], ids) for ids in side]
    pictures += zip(paths, side, strict=True)
    lines = [f"{p.removeprefix(folder + '/')} {number[ids[0]]}" for p, ids in zip(paths, side, strict=True)]
    lists[f"list_{name}.txt"] = "\n".join(lines) + "\n"
  return pictures, lists


def identity_layout():
  sides = {"train": TRAIN, "query": QUERY, "gallery": GALLERY}
  return [
    (f"{split}/{ids[0]}/{ids[2]}_c{ids[1]}.jpg", ids) for split, side in sides.items() for ids in side
  ], {}


LAYOUTS = {
  "market1501": ("market1501", market_layout()),
  "msmt17_v1": ("msmt17", msmt17_layout("train", "test")),
  "msmt17_v2": ("msmt17", msmt17_layout("mask_train_v2", "mask_test_v2")),
  "identity_folder": ("identity_folder", identity_layout()),
}

# Changes of the configuration for the run on a layout.
RUNS = {
  "identity_folder": {"total_steps": 6, "ema_decay": 0.5, "eval_every_epochs": 2, "base_lr": 1e-2},
  "market1501": {"model__locality": True},
}


@pytest.fixture(scope="session")
def layout_folder(tmp_path_factory):
  """Returns a function (name of a layout -> (source, folder with fourteen pictures))."""
  people = synthetic.open_source(num_train=8 * 8, image_size=(40, 20))

  def make(name):
    source, (pictures, texts) = LAYOUTS[name]
    root = tmp_path_factory.mktemp(name)
    for path, (pid, camid, number) in pictures:
      (root / path).parent.mkdir(parents=True, exist_ok=True)
      picture = people[8 * pid + 2 * (camid - 1) + number]["image"]
      Image.fromarray(picture).save(root / path, "JPEG", quality=95)
    for path, text in texts.items():
      (root / path).write_text(text)
    return source, root

  return make


def reid_config(source, root, **overrides):
  config = finetune_reid_demo.get_config()
  config.update_from_flattened_dict(
    {**TINY, "data.source": source, "data.root": str(root)}
    | {k.replace("__", "."): v for k, v in overrides.items()}
  )
  return config_lib.finalize(config)


def weights_of(workdir):
  return checkpoint_file.read(workdir)[0]


@pytest.fixture(scope="module")
def make_run(layout_folder, tmp_path_factory):
  """Returns a function (layout -> (config, workdir, data folder, scores) of a run). Each run is made once."""

  @functools.cache
  def make(layout):
    source, root = layout_folder(layout)
    config = reid_config(source, root, **RUNS.get(layout, {}))
    workdir = tmp_path_factory.mktemp("run") / "work"
    return config, workdir, root, runner.run(config, workdir, say=lambda _: None)

  return make


@pytest.fixture
def trained(make_run):
  """Returns (workdir, data folder, scores) of a run with a moving average on the layout identity_folder."""
  return make_run("identity_folder")[1:]


# One layout is enough for the loop, because all sources have the same interface.
@pytest.mark.parametrize(
  "layout",
  [pytest.param(name, marks=() if name == "identity_folder" else pytest.mark.soak) for name in LAYOUTS],
)
def test_each_layout_trains_resumes_and_is_scored_again(layout, make_run, tmp_path, capsys):
  config, whole, _, scores = make_run(layout)
  last, pieced, lines = config.total_steps, tmp_path / "pieced", []
  assert {"mAP", "rank1", "rank5", "rank10", "mINP"} <= scores.keys()
  assert 0 < scores["mAP"] <= 1
  assert (whole / "panels" / f"ranks_{last:08d}.png").is_file()
  assert (whole / "curves.png").is_file()

  shutil.copytree(whole, pieced)
  rng = np.random.default_rng(0)
  damage.flip(damage.largest(pieced / "checkpoints" / str(last)), rng)
  # The resumed run must find the best checkpoint again by itself.
  for best in checkpoint_list.steps(pieced / "best").values():
    damage.halve(damage.largest(best))
  resumed = runner.run(config, pieced, say=lines.append)
  assert f"resuming at step {last - 1}" in lines
  assert lines[0].endswith(f"has changed since it was written. It is kept as {last}.damaged")
  assert any(f"checkpoint {pieced}/best/" in line and "is damaged: state/" in line for line in lines)
  assert resumed == scores
  jax.tree.map(np.testing.assert_array_equal, weights_of(whole), weights_of(pieced))

  capsys.readouterr()
  assert hap(["evaluate", str(whole), f"--out={tmp_path / 'scores'}"]) == 0
  assert json.loads((tmp_path / "scores" / "scores.json").read_text())["scores"] == scores
  assert (tmp_path / "scores" / "ranks.png").is_file()
  assert hap(["evaluate", str(whole / "best")]) == 0


@pytest.mark.soak
def test_a_run_that_continues_another_one_resumes_to_the_same_end(layout_folder, tmp_path):
  """With batch statistics, an average and a best checkpoint. The old run is not needed after the start."""
  source, root = layout_folder("identity_folder")
  plan = {"ema_decay": 0.5, "model.locality": True, "eval_every_epochs": 0, "eval_every": 2, "keep_last": 9}
  old, whole, pieced, lines = (*(tmp_path / name for name in ("old", "whole", "pieced")), [])
  runner.run(reid_config(source, root, **plan, total_steps=5), old, say=lines.append)
  plan |= {"continue_from": f"{old}/5", "total_steps": 9, "base_lr": 5e-3, "seed": 1}
  new = reid_config(source, root, **plan)
  scores = runner.run(new, whole, say=lines.append)
  assert any("at step 5, epoch" in line for line in lines)
  before, after = (
    ocp.PyTreeCheckpointer().restore(run / "checkpoints" / "5" / "state") for run in (old, whole)
  )
  assert {"params", "batch_stats"} <= after["ema"].keys()
  jax.tree.map(np.testing.assert_array_equal, before, after)
  shutil.copytree(whole, pieced)
  for name in ("checkpoints/9", "checkpoints/8", "checkpoints/7", "best"):
    shutil.rmtree(pieced / name)
  shutil.rmtree(old)
  assert runner.run(new, pieced, say=lines.append) == scores
  assert "resuming at step 6" in lines
  jax.tree.map(np.testing.assert_array_equal, weights_of(whole), weights_of(pieced))
  assert checkpoint_file.read_description(whole)["lineage"][0]["step"] == 5


def test_every_evaluation_is_recorded_and_the_best_checkpoint_is_kept(trained):
  workdir, _, _ = trained
  scored = {row["step"]: row["mAP"] for row in read_metrics(workdir) if "mAP" in row}
  assert len(scored) > 2
  _, description = checkpoint_file.read(workdir / "best")
  assert description["scores"]["mAP"] == max(scored.values())
  assert description["step"] == min(step for step, value in scored.items() if value == max(scored.values()))


def test_reading_a_checkpoint_gives_the_moving_average(trained):
  newest = trained[0] / "checkpoints" / "6"
  saved = ocp.PyTreeCheckpointer().restore(newest / "state")
  read, ema, last = (tree["params"]["head"]["kernel"] for tree in (weights_of(newest), saved["ema"], saved))
  np.testing.assert_array_equal(read, ema)
  assert np.abs(np.asarray(read) - np.asarray(last)).max() > 0


def test_describe_lists_the_commands_for_a_run(trained, capsys):
  workdir, _, _ = trained
  capsys.readouterr()
  assert hap(["describe", str(workdir)]) == 0
  printed = capsys.readouterr().out
  assert "fine-tuned for reid, step 6" in printed
  assert "checkpoints/6: whole" in printed
  assert "best/" in printed
  assert "recorded in the checkpoint" in printed
  assert f"evaluate {workdir}" in printed


def test_a_file_in_the_official_format_gets_the_scores_of_its_run(trained, tmp_path, capsys):
  workdir, root, scores = trained
  assert hap(["convert", str(workdir), f"--out={tmp_path / 'reid.pth'}", "--to=reid-vit"]) == 0
  words = ["--config=configs/finetune_reid_demo.py", "--data.source=identity_folder", f"--data.root={root}"]
  words += ["--set=eval_batch_size=8", f"--out={tmp_path / 'scores'}"]
  assert hap(["evaluate", str(tmp_path / "reid.pth"), *words]) == 0
  assert json.loads((tmp_path / "scores" / "scores.json").read_text())["scores"] == scores
  bare = tmp_path / "bare.pth"
  bare.write_bytes(torch_bytes.zip_file({"model": family_state("reid-vit", width=128, depth=4)}))
  capsys.readouterr()
  assert hap(["evaluate", str(bare)]) == 1
  assert "records no configuration: pass --config=FILE" in capsys.readouterr().err


def test_predict_ranks_a_folder_and_embed_turns_it_into_vectors(trained, tmp_path, capsys):
  workdir, root, _ = trained
  query = root / "query" / "3" / "0_c1.jpg"
  out, file = tmp_path / "found", tmp_path / "vectors.npz"
  assert (
    hap(["predict", str(workdir), str(query), f"--gallery={root}", f"--out={out}", "--batch_size=8"]) == 0
  )
  written = json.loads((out / "ranking.json").read_text())
  assert written["feature"] == "embedding"
  assert [entry["rank"] for entry in written["ranking"]] == list(range(1, 11))
  assert written["ranking"][0]["file"] == "query/3/0_c1.jpg"
  assert written["ranking"][0]["distance"] == pytest.approx(0, abs=1e-5)
  assert (out / "ranking.png").is_file()

  assert hap(["embed", str(workdir), str(root), f"--out={file}", "--batch_size=8"]) == 0
  with np.load(file) as arrays:
    assert len(arrays["path"]) == len(arrays["feature"]) == 14
    np.testing.assert_allclose(np.linalg.norm(arrays["feature"], axis=1), 1, rtol=1e-5)
    # The distances of the vectors of `hap embed` must give the same ranking as `hap predict`.
    distance = (
      (arrays["feature"] - arrays["feature"][list(arrays["path"]).index("query/3/0_c1.jpg")]) ** 2
    ).sum(1)
    ranked = arrays["path"][np.argsort(distance, kind="stable")][:10]
  assert [entry["file"] for entry in written["ranking"]] == ranked.tolist()
  capsys.readouterr()
  assert hap(["embed", str(workdir), str(root), f"--out={file}"]) == 1
  assert "exists" in capsys.readouterr().err


def test_queries_without_a_match_are_an_error_before_the_first_step(tmp_path):
  for split in ("train", "query", "gallery"):
    for person in range(4):
      folder = tmp_path / split / f"{'a' if split == 'train' else 'b'}{person}"
      folder.mkdir(parents=True)
      for number in range(4):
        Image.new("RGB", (20, 40)).save(folder / f"{split}{number}_c1.jpg")
  with pytest.raises(ValueError, match="none of the 16 queries has a match in the gallery that counts"):
    reid_task.make(reid_config("identity_folder", tmp_path))


def test_a_source_without_person_numbers_is_an_error(tmp_path):
  people = synthetic.open_source(num_train=4, image_size=(40, 20))
  luperson_files.write(tmp_path, (people[i] for i in range(4)))
  with pytest.raises(ValueError, match=r"config\.data\.source='luperson' has no person numbers"):
    reid_task.make(reid_config("luperson", tmp_path))


def test_two_copies_of_a_picture_in_a_batch_are_augmented_differently(layout_folder):
  """Each person has four pictures, but a batch has eight pictures per person."""
  source, root = layout_folder("identity_folder")
  config = reid_config(source, root, batch_size=16, num_instances=8, data__erase_prob=1.0)
  loader = reid_task.make(config).train
  batch = loader.batch(0)
  assert len(set(batch["index"])) < 16
  looks = {(row, *box) for row, box in zip(batch["index"].tolist(), batch["erase_box"].tolist(), strict=True)}
  assert len(looks) == 16
  # The second of two processes must get the second half of the same batch.
  half = dataclasses.replace(loader, process_index=1, process_count=2).batch(0)
  for name, rows in half.items():
    np.testing.assert_array_equal(rows, batch[name][8:], err_msg=name)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, tiny_config):
  """Returns the workdir of a pre-training run that also probes its encoder at every evaluation."""
  workdir = tmp_path_factory.mktemp("pretrained")
  probed = {"eval_every": 2, "probe__source": "synthetic", "data__synthetic__num_test": 64}
  runner.run(tiny_config(total_steps=4, save_every=4, **probed), workdir, say=lambda _: None)
  return workdir


@pytest.mark.soak
def test_the_probe_of_a_run_and_the_probe_command_give_the_same_scores(pretrained, capsys):
  rows = [row for row in read_metrics(pretrained) if "probe_mAP_mean" in row]
  assert [row["step"] for row in rows] == [2, 4]
  assert {"val_ratio", "probe_mAP_cls", "probe_mAP_stripes", "probe_rank1_mean", "probe_mAP_chance"} <= rows[
    0
  ].keys()
  options = ["--data.source=synthetic", "--set=num_test=64", "--set=image_size=(40,20)", "--batch_size=8"]
  assert hap(["probe", str(pretrained), *options]) == 0
  printed = dict(
    line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("mAP", "rank1"))
  )
  for name in ("mAP_mean", "mAP_stripes", "mAP_chance"):
    assert float(printed[name]) == pytest.approx(rows[-1][f"probe_{name}"], abs=1e-4)


def test_the_probe_may_use_another_data_set_than_the_held_out_records(tiny_config, layout_folder):
  source, root = layout_folder("market1501")
  config = tiny_config(probe__source=source, probe__root=str(root), data__num_val=8)
  evals = pretrain_task.make(config).evaluation.evals
  assert {name: len(split.loader.source) for name, split in evals.items()} == {
    "val": 8,
    "probe_query": len(QUERY),
    "probe_gallery": len(GALLERY),
  }


def test_part_masks_on_pictures_without_joints_are_an_error(tiny_config, layout_folder):
  source, root = layout_folder("identity_folder")
  config = tiny_config(data__source=source, data__root=str(root), data__num_val=0)
  with pytest.raises(ValueError, match=r"mask\.parts=True needs joints, and identity_folder has none"):
    pretrain_task.make(config)


@pytest.fixture(scope="module")
def fine_tuned(pretrained, layout_folder, tmp_path_factory):
  """Returns (workdir, printed lines) of a run of one step from the pre-trained encoder."""
  source, root = layout_folder("market1501")
  workdir, lines = tmp_path_factory.mktemp("fine_tuned") / "run", []
  config = reid_config(source, root, init_from=str(pretrained), total_steps=1)
  runner.run(config, workdir, say=lines.append)
  return workdir, lines


@pytest.mark.soak
def test_fine_tuning_starts_from_a_pre_trained_encoder(pretrained, fine_tuned):
  workdir, lines = fine_tuned
  key = ("encoder", "blocks", "mlp", "fc1", "kernel")
  assert any("starting from" in line for line in lines)
  before, after = (weights_of(run)["params"] for run in (pretrained, workdir))
  for name in key:
    before, after = before[name], after[name]
  np.testing.assert_array_equal(after, before)  # the learning rate of the first warm-up step is 0
  assert checkpoint_file.read(workdir)[1]["lineage"][0]["family"] == "hap_jax"


@pytest.mark.soak
def test_every_command_reports_the_licences_of_all_stages(fine_tuned, tmp_path, capsys):
  (run, _), folder, out = fine_tuned, tmp_path / "folder", tmp_path / "encoder"
  market = "Market-1501: academic research, on the terms of its authors"
  lines = [
    f"research only, data set market1501: {market}",
    "permissive, data set synthetic: Apache-2.0 (made by this project)",
  ]
  words = ["--to=hf-vit", "--no_real_class"]
  for command in (
    ["describe", str(run)],
    ["convert", str(run), f"--out={folder}", *words],
    ["describe", str(folder)],
    ["export", str(folder), f"--out={out}"],
  ):
    capsys.readouterr()
    assert hap(command) == 0
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    made_from = [line.removeprefix("made from").lstrip(": ") for line in printed if "made from" in line]
    assert made_from == lines
    (licence,) = (line for line in printed if line.startswith("licence"))
    assert licence.removeprefix("licence").lstrip(": ") == market
  for readme in (folder / "README.md", out / "README.md"):
    assert "".join(f"- {line}\n" for line in lines) in readme.read_text()
  assert (folder / "README.md").read_text().startswith("---\nlicense: other\n")
  for report in (folder / "conversion.json", out / "description.json"):
    recorded = json.loads(report.read_text())
    assert recorded["licence"] == market
    assert [item["name"] for item in recorded["made_from"]] == ["market1501", "synthetic"]


def test_a_checkpoint_for_another_task_is_an_error(tmp_path, capsys):
  pretrained = sorted(record.FOLDER.glob("*/pretrain"))[-1]
  assert hap(["evaluate", str(pretrained), "--config=configs/finetune_reid_demo.py"]) == 1
  assert "is a checkpoint for pretrain, but the configuration is for reid" in capsys.readouterr().err
  Image.new("RGB", (20, 40)).save(tmp_path / "picture.png")
  assert (
    hap(["embed", str(pretrained), str(tmp_path), f"--out={tmp_path / 'x.npz'}", "--feature=embedding"]) == 1
  )
  assert "is a checkpoint for pretrain and has no embedding" in capsys.readouterr().err


@pytest.mark.soak
def test_a_run_on_another_data_set_starts_from_a_fine_tuned_run(fine_tuned, layout_folder, tmp_path):
  """Both data sets have the same number of persons, but different persons. So the classifier is new."""
  source, root = layout_folder("msmt17_v1")
  lines = []
  config = reid_config(source, root, init_from=str(fine_tuned[0]), total_steps=1, seed=1)
  runner.run(config, tmp_path / "run", say=lines.append)
  before, after = (checkpoint_file.read(path) for path in (fine_tuned[0], tmp_path / "run"))
  assert before[1]["classes"] == {"people": "market1501", "pids": [2, 7]}
  assert after[1]["classes"] == {"people": "msmt17", "pids": [0, 1]}
  kept = "\n".join(lines)
  assert "kept at their initial values: 2 (head/bias, head/kernel)" in kept
  assert "the heads of the file are not used: it has other classes" in kept
  old, new = (read[0]["params"] for read in (before, after))
  np.testing.assert_array_equal(old["encoder"]["norm"]["scale"], new["encoder"]["norm"]["scale"])
  assert np.abs(old["head"]["kernel"] - new["head"]["kernel"]).max() > 0.01
