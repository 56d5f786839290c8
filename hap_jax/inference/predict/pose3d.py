"""Estimate 3D pose and shape of people in pictures; writes parameters, meshes and pictures of each person."""

import collections
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import sharding
from hap_jax.convert import read as reading
from hap_jax.data.pipeline import Reading
from hap_jax.data.sources import base
from hap_jax.data.transforms import square_crop
from hap_jax.evaluation.evaluate import EvalSplit, make_pass
from hap_jax.inference import people_in_pictures
from hap_jax.io import picture_file, unfinished
from hap_jax.io.progress import Progress
from hap_jax.models import crop_camera, rotations, smpl
from hap_jax.tasks import pose3d
from hap_jax.train import initial_body
from hap_jax.viz import bodies as viz

_NEAREST = 0.01  # metres; nothing is nearer to the camera, so a damaged network gives finite pixels
_FARTHEST = 1e6  # metres; no vertex of a useful prediction is farther away
_ENDINGS = (".npz", ".obj", ".png")
# A file system allows names of 255 bytes. The rest is for the number, the ending and `unfinished`.
_LONGEST = 200


def add_arguments(parser):
  people_in_pictures.add_arguments(parser)
  parser.add_argument(
    "--poses", metavar="FILE", help="2D joints of people, in place of boxes, as 2D pose writes them"
  )
  parser.add_argument("--body", metavar="DIR", default="", help="body model (default: that of the training)")


def run(args):
  """Writes the results for every person of `args.pictures` into the new folder `args.out`."""
  with Progress("predict") as progress:
    progress.stage("reading the checkpoint")
    weights = reading.read(args.checkpoint, selection=args.selection)
    description = weights.description
    bodies = initial_body.of_checkpoint(description, args.body)
    people = people_in_pictures.open_people(
      args.pictures,
      boxes=args.boxes,
      joints=args.poses,
      exif=args.exif,
      find_problem=square_crop.find_problem,
    )
    progress.begin(len(people), "people")
    found = predict(
      weights, bodies, people, batch_size=args.batch_size, workers=args.workers, progress=progress
    )
    progress.stage("writing the results")
    with unfinished.new_folder(pathlib.Path(args.out)) as out:
      entries = _write(out, people, bodies, found)
      content = {
        "checkpoint": args.checkpoint,
        "folder": args.pictures,
        "exif": args.exif,
        "body": {"name": bodies.name, "licence": bodies.licence, "digest": bodies.digest},
        "people": entries,
      }
      (out / "people.json").write_text(json.dumps(content, indent=2) + "\n")
  for line in (*people.notes, *initial_body.notes(description, bodies)):
    print(line)
  print(f"{len(entries):,} people on {len({entry['file_name'] for entry in entries}):,} pictures")
  print(f"written: {args.out}")


def predict(weights, bodies, people, *, batch_size, workers, progress):
  """Predicts the body parameters of people.

  Args:
    weights: the `convert.weights.Weights` of the checkpoint.
    bodies: the `BodySet` of the network.
    people: `People`.
    batch_size: people per batch.
    workers: number of processes that read pictures.
    progress: a started `Progress`.
  Returns:
    {name: [N, ...] array}: rotations [N, 24, 3, 3], betas [N, 10], camera [N, 3], region [N, 4].
  """
  mesh = sharding.make_mesh()
  sharding.check_batch_size(batch_size, mesh, "--batch_size")
  view = square_crop.make_view(image_size=weights.description.encoder.image_size)
  # No picture may be skipped, because each person gets results.
  reader = Reading(workers=workers, max_bad_share=0.0, bad_share_key="")
  loader = reader.ordered(people, view, batch_size, ("image", "region"))
  split = EvalSplit(loader, pose3d.make_predict_parameters(weights.description))
  variables = sharding.put_replicated(weights.variables, mesh)
  return make_pass(split, mesh)(variables, progress=progress)


def whole_camera(camera, region, size):
  """Returns the camera of the whole picture for a body that was seen through the camera of its square.

  The focal length of the whole picture is FOCAL / SIDE times its longer side, and its principal point is its
  centre. The body keeps its place and its size in the picture. So a body at the border of the picture keeps
  the rotation that it has in the centre of its square, as is usual (HMR 2.0, arXiv 2305.20091).

  Args:
    camera: [3], the prediction, see `crop_camera.camera_translation`.
    region: [4], (centre x, centre y, side, side) of the square in pixels.
    size: (H, W) of the picture.
  Returns:
    (translation [3] float32 metres, focal length in pixels, principal point [2] float32 in pixels).
  """
  H, W = size
  focal = crop_camera.FOCAL / crop_camera.SIDE * max(H, W)
  center = np.array(((W - 1) / 2, (H - 1) / 2))
  x, y, depth = np.asarray(crop_camera.camera_translation(jnp.asarray(camera)), np.float64)
  depth = max(depth, _NEAREST)
  scale = crop_camera.FOCAL / depth * region[2] / crop_camera.SIDE  # pixels of the picture per metre
  far = focal / scale
  shift = (np.asarray(region[:2], np.float64) - center) / scale
  return np.array([x + shift[0], y + shift[1], far], np.float32), float(focal), center.astype(np.float32)


def _write(out, people, bodies, found):
  """Writes the files of all people into the folder `out`. Returns one entry per person for people.json.

  Raises ValueError if the mesh of a person has a number that is not finite or too large.
  """
  # The arrays go to the device once, not once per person.
  body, faces = jax.device_put(smpl.body_arrays(bodies, "neutral")), bodies.of("neutral").faces
  pose = jax.jit(_pose)
  names, entries = _names([people.file(i) for i in range(len(people))]), []
  for i, name in enumerate(names):
    file, image = people.file(i), people[i]["image"]
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    row = {key: value[i] for key, value in found.items()}
    translation, focal, center = whole_camera(row["camera"], row["region"], image.shape[:2])
    matrices, betas = row["rotations"][None], row["betas"][None]
    vertices, joints, vectors = (np.asarray(x)[0] for x in pose(body, matrices, betas, translation[None]))
    if not np.abs(vertices).max() < _FARTHEST:  # also True for NaN
      raise ValueError(
        f"{base.printable(file)}: the mesh of the network's prediction is not finite or reaches farther than "
        f"{_FARTHEST:g} m: check the weights and the body"
      )
    intrinsics = np.array(((focal, 0, center[0]), (0, focal, center[1]), (0, 0, 1)))
    pixels = joints[:, :2] / np.maximum(joints[:, 2:], _NEAREST) * focal + center
    np.savez(
      out / f"{name}.npz",
      global_orient=vectors[0],
      body_pose=vectors[1:].reshape(-1),
      betas=row["betas"],
      transl=translation,
      focal_length=np.full(2, focal, np.float32),
      principal_point=center,
      crop_camera=row["camera"],
      region=row["region"],
      joints=joints,
      joints_2d=pixels.astype(np.float32),
    )
    write_obj(out / f"{name}.obj", vertices, faces)
    sheet = viz.person_sheet(image, row["region"], vertices, faces, intrinsics, pixels)
    picture_file.write(out / f"{name}.png", sheet)
    entries.append(
      {"file_name": file, "region": [round(float(x), 2) for x in row["region"]], "files": f"{name}.*"}
    )
  return entries


def _names(files):
  """Returns the name of each person's results: the picture without its ending, and the number of the person.

  If two pictures differ only in their endings, the names keep them, so that no file replaces another one. A
  long name is cut. A number is skipped if a folder of pictures has the name of the file.

  Args:
    files: the picture of each person, relative to the folder.
  """
  stem_of = {file: str(pathlib.PurePosixPath(file).with_suffix("")) for file in files}
  sharing = collections.Counter(stem_of.values())
  folders = {str(above) for file in files for above in pathlib.PurePosixPath(file).parents}
  counts, names = collections.Counter(), []
  for file in files:
    stem = _cut(stem_of[file] if sharing[stem_of[file]] == 1 else file)
    counts[stem] += 1
    while any(f"{stem}_{counts[stem]:02d}{ending}" in folders for ending in _ENDINGS):
      counts[stem] += 1
    names.append(f"{stem}_{counts[stem]:02d}")
  return names


def _cut(path):
  """Returns a path whose last part has at most _LONGEST bytes. Only whole characters are cut off."""
  folder, name = os.path.split(path)
  while len(os.fsencode(name)) > _LONGEST:
    name = name[:-1]
  return os.path.join(folder, name)


def _pose(body, matrices, betas, translation):
  """Returns (vertices, the 30 joints, rotation vectors) of B people."""
  vertices, _ = smpl.pose_body(body, matrices, betas, translation)
  return vertices, smpl.regress_joints(body, vertices), rotations.matrix_to_axis_angle(matrices)


def write_obj(path, vertices, faces):
  """Writes a mesh as a Wavefront .obj file, in metres, in the camera frame: x right, y down, z forward."""
  lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in np.asarray(vertices).tolist()]
  lines += [f"f {a} {b} {c}" for a, b, c in (np.asarray(faces) + 1).tolist()]  # it counts vertices from 1
  path.write_text("\n".join(lines) + "\n")
