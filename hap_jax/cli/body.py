"""Make the body-model folder for 3D pose and shape, from SMPL's files or from the project's own body."""

from hap_jax.cli import _options
from hap_jax.convert import smpl_files
from hap_jax.data import body_model
from hap_jax.data.sources import synthetic


def add_arguments(parser):
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make; set config.body to it")
  for gender in body_model.GENDERS:
    needed = "every task" if gender == "neutral" else "the evaluation on 3DPW"
    parser.add_argument(
      f"--{gender}", metavar="FILE", help=f"SMPL's {gender} body, .pkl or .npz, for {needed}"
    )
  parser.add_argument(
    "--regressors",
    metavar="DIR",
    help=f"folder with {body_model.H36M_FILE}, for the evaluation on 3DPW",
  )
  parser.add_argument(
    "--synthetic", action="store_true", help="write the body of drawn people, which needs no input files"
  )


def run(args):
  _options.check_new(args.out)
  files = {gender: getattr(args, gender) for gender in body_model.GENDERS if getattr(args, gender)}
  if args.synthetic:
    for name in (*files, *(["regressors"] if args.regressors else [])):
      raise ValueError(f"--{name}: has no effect with --synthetic: remove one of the two options")
    body_set, notes = synthetic.own_body(), []
  elif "neutral" not in files:
    raise ValueError(
      "--neutral=FILE is missing; expected SMPL's neutral body (https://smpl.is.tue.mpg.de), or --synthetic "
      "for the project's own body"
    )
  else:
    body_set, notes = smpl_files.read(files, args.regressors)
  body_model.write_body_set(args.out, body_set)
  for line in _lines(args.out, body_set, notes):
    print(line)


def _lines(out, body_set, notes):
  neutral = body_set.of("neutral")
  shapes = neutral.shapedirs.shape[2]
  genders = "one body for all genders" if body_set.one_for_all else ", ".join(body_set.bodies)
  h36m = "17 joints of Human3.6M"
  if body_set.h36m_regressor is None:
    h36m = "no joints of Human3.6M (--regressors=DIR adds them; only the evaluation on 3DPW needs them)"
  return [
    f"{out}: {body_set.name}, {genders}",
    f"  {neutral.num_vertices:,} vertices, {len(neutral.faces):,} faces, {shapes} shape directions",
    f"  regressors: {len(body_set.joint_regressor)} joints; {h36m}",
    f"  licence: {body_set.licence}",
    f"  digest: {body_set.digest}",
    *(f"  note: {note}" for note in notes),
  ]
