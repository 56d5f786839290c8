"""Find the joints of people in pictures; writes a JSON file of joints, and draws them onto each picture."""

import collections
import os
import pathlib

import numpy as np

from hap_jax import sharding
from hap_jax.convert import read as reading
from hap_jax.data import pose_results
from hap_jax.data.pipeline import Reading
from hap_jax.data.skeletons import SKELETONS
from hap_jax.data.transforms import topdown
from hap_jax.evaluation.evaluate import EvalSplit, make_pass
from hap_jax.inference import people_in_pictures
from hap_jax.io import picture_file, unfinished
from hap_jax.io.progress import SILENT, Progress
from hap_jax.metrics import keypoints2d as metrics
from hap_jax.models.pose_estimator import head_names
from hap_jax.tasks import pose2d
from hap_jax.viz import pose as viz

_RESULTS, _OVERLAYS = "keypoints.json", "overlays"
_MIN_SCORE = 0.2  # joints with a lower score are not drawn, and do not count in the score of a person
_CATEGORY = 1  # COCO's id of the category "person"
_QUALITY = 90  # quality of the JPEG files


def add_arguments(parser):
  people_in_pictures.add_arguments(parser)
  parser.add_argument(
    "--dataset",
    metavar="LABEL",
    default="",
    help="data set whose expert and head are used, if the checkpoint has several (default: the first)",
  )
  parser.add_argument(
    "--no_flip",
    action="store_true",
    help="leave out the second pass over the mirrored image: half the time",
  )


def run(args):
  """Finds the joints of every person of `args.pictures`, and writes the folder `args.out`."""
  with Progress("predict") as progress:
    progress.stage("reading the checkpoint")
    weights = reading.read(args.checkpoint, selection=args.selection)
    weights = pose2d.of_data_set(weights, args.dataset)
    skeleton = skeleton_of(args.checkpoint, weights)
    progress.stage("reading the boxes")
    people = people_in_pictures.open_people(args.pictures, boxes=args.boxes, exif=args.exif)
    progress.begin(len(people), "people")
    rows = predict(
      args.checkpoint,
      weights,
      people,
      flip_test=not args.no_flip,
      batch_size=args.batch_size,
      workers=args.workers,
      progress=progress,
    )
    with unfinished.new_folder(pathlib.Path(args.out)) as out:
      pose_results.write_coco_results(out / _RESULTS, make_results(people, rows))
      progress.begin(len(np.unique(people.picture)), "pictures drawn")
      write_overlays(out / _OVERLAYS, people, rows, skeleton, progress)
  for note in people.notes:
    print(note)
  print(f"{len(people):,} people in {len(np.unique(people.picture)):,} pictures")
  print(f"written: {args.out}")


def skeleton_of(path, weights):
  """Returns the `Skeleton` of the joints that a checkpoint predicts.

  Args:
    path: path of the checkpoint, for error messages.
    weights: the `convert.weights.Weights`.
  Raises:
    ValueError: if the checkpoint has no head for joints, or if its joints, the grid or the number of heads of
      its encoder is unknown.
  """
  description, head = weights.description, head_names(1)[0]
  if head not in weights.params:
    raise ValueError(
      f"{path}: it has no head for joints ({head}), found only {', '.join(sorted(weights.params))}; expected "
      "a checkpoint that was trained for pose2d"
    )
  if weights.grid is None or weights.num_heads is None:
    raise ValueError(
      f"{path}: its grid or number of heads is unknown: convert it first with hap convert "
      "--source_grid=HxW --num_heads=N"
    )
  joints = list(description.classes.get("joints", ()))
  for skeleton in SKELETONS.values():
    if joints == list(skeleton.joints) and description.network.get("num_joints") == len(joints):
      return skeleton
  raise ValueError(
    f"{path}: it predicts {description.network.get('num_joints')} joints, and records "
    f"{len(joints)} names of joints; expected the joints of {', '.join(SKELETONS)}"
  )


def predict(path, weights, people, *, flip_test=True, batch_size=64, workers=0, progress=SILENT):
  """Predicts the joints of people.

  Args:
    path: path of the checkpoint, for error messages.
    weights: `convert.weights.Weights` of this task.
    people: `People` with N people.
    flip_test: True: the heat maps are averaged with the heat maps of the mirrored image.
    batch_size: people per batch.
    workers: number of processes that read pictures.
    progress: a started `Progress` that counts the people.
  Returns:
    {"keypoints_xy": [N, K, 2] float32 in pixels of the picture, "score": [N, K] float32, "region": [N, 4]
    float32 (see `transforms.topdown`), "box": [N, 4] float32, the boxes of the people}.
  Raises:
    ValueError: in the same cases as `skeleton_of`, or if a picture cannot be read.
  """
  skeleton, description = skeleton_of(path, weights), weights.description
  mesh = sharding.make_mesh()
  sharding.check_batch_size(batch_size, mesh, "--batch_size")
  find_joints = pose2d.make_predict(description, skeleton, flip_test)

  def predict_batch(variables, batch):
    return find_joints(variables, batch) | {"box": batch["box"]}

  # No picture may be skipped, because every box must get joints.
  reading_all = Reading(workers=workers, max_bad_share=0.0, bad_share_key="")
  loader = reading_all.ordered(people, view_of(description), batch_size, ("image", "region", "is_udp", "box"))
  variables = sharding.put_replicated(weights.variables, mesh)
  return make_pass(EvalSplit(loader, predict_batch), mesh)(variables, progress=progress)


def view_of(description, *, padding=topdown.PADDING):
  """Returns the transforms that cut the person in a box out of a picture for a checkpoint.

  Args:
    description: the Description of the checkpoint.
    padding: width of the region that the network sees divided by the width of the box.
  """
  fit_aspect = description.network["fit_aspect"]
  return topdown.make_view(
    image_size=description.encoder.image_size,
    codec=description.network["codec"],
    fit_aspect=fit_aspect,
    clip=_clips_boxes(description),
    square=not fit_aspect,  # such a network was trained on square boxes, as in MPII
    padding=padding,
  )


def _clips_boxes(description):
  """Returns True if boxes were cut at the border of the picture in the training of a checkpoint."""
  data = (description.config or {}).get("data")
  return isinstance(data, dict) and data.get("clip_boxes") is True


def make_results(people, rows):
  """Returns the joints in COCO's format for results, one dict per person in the order of the people.

  The score of a person is the score of the box times the mean score of the certain joints, as in an
  evaluation. A dict also has "file_name", the path of the picture below the folder, and "bbox", the box.

  Args:
    people: the `People`.
    rows: the result of `predict`.
  """
  score = metrics.rescore(rows["score"], people.score)
  results = metrics.make_results(
    rows["keypoints_xy"], rows["score"], score, people.image_id, _CATEGORY, rows["region"]
  )
  corner, other = np.split(rows["box"].astype(np.float64), 2, axis=1)
  bboxes = np.concatenate([corner, other - corner], axis=1).round(3).tolist()
  return [
    {"file_name": people.file(i), **result, "bbox": bbox}
    for i, (result, bbox) in enumerate(zip(results, bboxes, strict=True))
  ]


def write_overlays(folder_out, people, rows, skeleton, progress=SILENT):
  """Writes each picture that has people, with their boxes and joints, as a JPEG file in a new folder.

  A person who was found twice is drawn once (OKS-NMS). Joints with a low score are not drawn.

  Args:
    folder_out: pathlib.Path of the folder. Sub-folders of the pictures become sub-folders.
    people: the `People`.
    rows: the result of `predict`.
    skeleton: the `Skeleton` of the joints.
    progress: a started `Progress` that counts the pictures.
  """
  region = rows["region"]
  kept, score = metrics.suppress(
    rows["keypoints_xy"], rows["score"], region[:, 2] * region[:, 3], people.score, people.picture, skeleton
  )
  shown_in = collections.defaultdict(list)
  for i in kept[np.argsort(score, kind="stable")].tolist():  # draws the highest score last, on top
    shown_in[int(people.picture[i])].append(i)
  names = overlay_names(people.pictures.paths)
  for picture, shown in sorted(shown_in.items()):
    drawn = viz.draw_people(
      people.pictures[picture]["image"],
      () if people.box is None else people.box[shown],
      rows["keypoints_xy"][shown],
      rows["score"][shown] > _MIN_SCORE,
      skeleton,
    )
    path = folder_out / names[picture]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_file.encode_jpeg(drawn, _QUALITY))
    progress.add(1)


def overlay_names(paths):
  """Returns the path of the overlay of each picture: the path of the picture, with the ending .jpg.

  If another picture or a folder has this path, .jpg is appended to the whole path of the picture.
  """
  folders = {str(above) for path in paths for above in pathlib.PurePath(path).parents}
  taken, names = {*paths, *folders}, []
  for path in paths:
    name = os.path.splitext(path)[0] + ".jpg"
    if name != path and name in taken:
      name = f"{path}.jpg"
      while name in taken:
        name += ".jpg"
    taken.add(name)
    names.append(name)
  return names
