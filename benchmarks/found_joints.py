"""Compares found joints with true joints: python -m benchmarks.found_joints --model=RUN --model=MOVENET.

The benchmark draws people, finds their joints with `hap extract_poses` in the whole pictures and in the true
boxes, and prints one line of JSON per model and kind of box:
  pck, oks          PCK@0.1 and mean OKS of the labelled joints
  part_iou          mean overlap of the patches of a body part by the found joints and by the true joints:
                    intersection divided by union, over all parts that have a patch by the true joints
  part_share        share of the hidden patches that are hidden because of a body part, with the found joints
  part_share_true   the same with the true joints
  same_hidden       share of the hidden patches that are hidden with both, with the same random numbers
"""

import json
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks import measure
from hap_jax.data import pose_parts
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import folder, synthetic
from hap_jax.inference import extract_poses, pose_models, posed_pictures
from hap_jax.io import picture_file
from hap_jax.masking import parts
from hap_jax.masking import sampler as masking
from hap_jax.metrics import keypoints2d, oks

_SIZE, _PATCH = (256, 128), 16  # pixels of a picture, and the side of a patch
_GRID = (_SIZE[0] // _PATCH, _SIZE[1] // _PATCH)
_BATCH = 64


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument("--model", action="append", required=True, help="model for COCO's 17 joints")
  parser.add_argument("--people", type=int, default=512, help="number of pictures of people")
  parser.add_argument("--seed", type=int, default=1, help="seed of the people; runs use seed 0")
  parser.add_argument("--padding", type=float, default=1.25, help="factor by which the boxes grow")
  parser.add_argument("--no_flip", action="store_true")
  return parser.parse_args(argv)


def draw_people(root, args):
  """Draws people and writes their pictures. Returns {field: [N, ...]} of the true values."""
  root.mkdir()
  source, rows = synthetic.open_source(split="val", seed=args.seed, num_val=args.people, image_size=_SIZE), []
  for number in range(args.people):
    drawn = source[number]
    picture_file.write(root / f"{number:06d}.jpg", drawn["image"])
    rows.append({name: drawn[name] for name in ("keypoints_xy", "keypoints_visible", "box", "area")})
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def find(model_path, root, boxes, out, args):
  """Returns [N, 17, 2], the joints that a model finds."""
  model = pose_models.load(model_path, padding=args.padding, flip_test=not args.no_flip)
  pictures = posed_pictures.of_source(folder.open_source(root=root), str(root), boxes)
  settings = extract_poses.Settings(args.padding, not args.no_flip, None, _BATCH, boxes)
  extract_poses.extract(model, pictures, out, settings, say=lambda line: None)
  poses = pose_parts.open_poses(out, "")
  return np.stack([poses.keypoints(i)[:, :2] for i in range(len(poses))])


def compare(xy, truth):
  """Returns {name: number} for found joints [N, 17, 2] and the true values."""
  true_xy, visible, box = (truth[name] for name in ("keypoints_xy", "keypoints_visible", "box"))
  side = (box[:, 2:] - box[:, :2]).max(axis=1)
  similarity = [
    oks.compare_with_person(
      one[None], np.concatenate([other, seen[:, None]], axis=1), (*corner, 0, 0), area, COCO17.sigmas
    )[0]
    for one, other, seen, corner, area in zip(xy, true_xy, visible, box[:, :2], truth["area"], strict=True)
    if seen.any()
  ]
  inside = ((xy >= 0) & (xy < _SIZE[::-1])).all(axis=-1)
  masks, covered = zip(*(_draw(*joints) for joints in ((xy, inside), (true_xy, visible))), strict=True)
  hidden = [mask != masking.CAUSE_VISIBLE for mask in masks]
  share = [
    (mask == masking.CAUSE_PART).sum() / is_hidden.sum()
    for mask, is_hidden in zip(masks, hidden, strict=True)
  ]
  union, common = (covered[0] | covered[1]).sum(axis=-1), (covered[0] & covered[1]).sum(axis=-1)
  is_there = covered[1].any(axis=-1)
  return {
    "pck": keypoints2d.pck(xy, true_xy, visible, side),
    "oks": np.mean(similarity),
    "part_iou": (common[is_there] / union[is_there]).mean(),
    "part_share": share[0],
    "part_share_true": share[1],
    "same_hidden": (hidden[0] & hidden[1]).sum() / hidden[1].sum(),
  }


def _draw(xy, visible):
  """Returns (causes [N, L], patches of each part [N, 6, L]) of masks with HAP's recipe."""
  recipe = masking.MaskRecipe(_GRID, _PATCH)
  batch = {
    "index": np.arange(len(xy), dtype=np.int32),
    "keypoints_xy": np.asarray(xy, np.float32),
    "keypoints_visible": visible,
  }
  cover = lambda *joints: parts.part_patches(*joints, _GRID, _PATCH, COCO17.parts)  # noqa: E731
  cause = jax.jit(lambda batch: masking.sample_masks_by_index(batch, 0, 1, recipe).cause[:, 0])(batch)
  patches = jax.jit(jax.vmap(cover))(batch["keypoints_xy"], batch["keypoints_visible"])
  return np.asarray(cause), np.asarray(patches)


def main(argv=None):
  args = parse_args(argv)
  with tempfile.TemporaryDirectory() as scratch:
    root, boxes = pathlib.Path(scratch) / "pictures", pathlib.Path(scratch) / "boxes.json"
    truth = draw_people(root, args)
    corner, end = np.split(truth["box"].astype(float), 2, axis=1)
    rows = np.concatenate([corner, end - corner], axis=1).tolist()
    boxes.write_text(json.dumps({f"{number:06d}.jpg": row for number, row in enumerate(rows)}))
    for number, model in enumerate(args.model):
      for kind, file in (("whole picture", None), ("true box", str(boxes))):
        xy = find(model, root, file, pathlib.Path(scratch) / f"{number} {kind}", args)
        found = {name: measure.digits(float(value), 4) for name, value in compare(xy, truth).items()}
        about = {"model": pathlib.Path(model).name, "boxes": kind, "people": len(xy), "padding": args.padding}
        measure.show(measure.line("found_joints", about | found, "jax"))


if __name__ == "__main__":
  main()
