"""Measures how well a threshold holds for other persons and other cameras. Prints one line of JSON.

    python -m benchmarks.threshold_transfer CHECKPOINT --seeds 1 2 3 4 5

CHECKPOINT is a person ReID run on drawn people. Each seed draws other people and other places, so it has
other cameras. Three kinds of moves are measured:
  other persons   the threshold of one half of the persons of a seed, on the other half, same cameras
  other cameras   the threshold of a seed, on the people of each other seed
  low resolution  the threshold of a seed, on the same people with half the pixels in each direction
"""

import itertools

import numpy as np

from benchmarks import measure
from hap_jax import config_sources
from hap_jax.convert import read as reading
from hap_jax.inference import embed, scoring
from hap_jax.metrics import calibration, pair_scores, retrieval, roc, verification


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument("checkpoint")
  parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
  parser.add_argument("--far", type=float, default=1e-2)
  parser.add_argument("--num_test", type=int, default=1_600, help="pictures of each seed, 8 per person")
  parser.add_argument("--batch_size", type=int, default=200)
  return parser.parse_args(argv)


def collect(args, weights, seed, scale=1):
  """Returns (PairScores, mAP) of the test people of a seed, drawn with 1 / `scale` of the recorded size."""
  options = {"seed": seed, "data.synthetic.num_test": args.num_test}
  config = scoring.configure(args.checkpoint, weights, None, options)
  size = tuple(side // scale for side in config.data.synthetic.image_size)
  config = scoring.configure(args.checkpoint, weights, None, {**options, "data.synthetic.image_size": size})
  extractor = embed.make_extractor(args.checkpoint, weights)
  sides = [config_sources.open_source(config, split) for split in ("query", "gallery")]
  vectors = [embed.extract(extractor, side, batch_size=args.batch_size)[0] for side in sides]
  ids = [side.columns[name] for name in ("pid", "camid") for side in sides]
  return pair_scores.collect(*vectors, *ids, seed=seed), retrieval.evaluate(*vectors, *ids).mean_ap


def halves_of(pairs):
  """Returns the `Roc` of each half of the persons."""
  return [roc.of_counts(pairs.score, pairs.genuine[h], pairs.impostor[h]) for h in range(2)]


def moved(source, target, far):
  """Returns the `Point` on the ROC `target` of the threshold that has the FAR `far` on the ROC `source`."""
  return roc.at_threshold(target, roc.at_far(source, far).threshold)


def loss_of(curve, pairs):
  """Returns the log loss of a `Curve` on PairScores, at a prior of 0.5."""
  counts = [side.sum(axis=0) for side in (pairs.genuine, pairs.impostor)]
  return calibration.log_loss(curve.probability(pairs.score, 0.5), *counts, 0.5)


def summary(points):
  """Returns the achieved FARs and TARs of `Point`s, and the range of the FARs."""
  far = [round(point.far, 5) for point in points]
  return {
    "far": far,
    "far_lowest": min(far),
    "far_highest": max(far),
    "tar_mean": round(float(np.mean([point.tar for point in points])), 4),
  }


def main(argv=None):
  args = parse_args(argv)
  weights = reading.read(args.checkpoint)
  found = [collect(args, weights, seed) for seed in args.seeds]
  pairs = [one for one, _ in found]
  small, small_ap = collect(args, weights, args.seeds[0], scale=2)
  whole = [verification.of_pairs(one, fars=(args.far,)) for one in pairs]
  points = [one.points[args.far] for one in whole]
  made = [calibration.calibrate(one) for one in pairs]
  others = list(itertools.permutations(range(len(pairs)), 2))
  small_whole = verification.of_pairs(small, fars=(args.far,))
  moves = {
    "other_persons": [moved(*order, args.far) for one in map(halves_of, pairs) for order in (one, one[::-1])],
    "other_cameras": [moved(whole[s].roc, whole[t].roc, args.far) for s, t in others],
    "low_resolution": [moved(whole[0].roc, small_whole.roc, args.far)],
  }
  measure.show(
    measure.line(
      "threshold_transfer",
      {
        "seeds": args.seeds,
        "goal": args.far,
        "mAP": [round(ap, 4) for _, ap in found],
        "mAP_low_resolution": round(small_ap, 4),
        "persons": whole[0].num_persons,
        "gallery": pairs[0].num_gallery,
        "gallery_without_half_of_the_persons": pairs[0].num_staying,
        "eer": [round(one.eer.value, 4) for one in whole],
        "tar": [round(at.tar.value, 4) for at in points],
        "tar_low": [round(at.tar.low, 4) for at in points],
        "tar_high": [round(at.tar.high, 4) for at in points],
        "threshold": [round(at.threshold, 6) for at in points],
        "threshold_low_resolution": round(small_whole.points[args.far].threshold, 6),
        "absent_rejected": [round(at.absent_rejected.value, 4) for at in points],
        "present_rejected": [round(at.present_rejected.value, 4) for at in points],
        **{name: summary(moves[name]) for name in moves},
        "methods": [one.curve.method for one in made],
        "log_loss_other_persons": [round(one.log_loss[one.curve.method], 4) for one in made],
        "log_loss_other_cameras": [round(loss_of(made[s].curve, pairs[t]), 4) for s, t in others],
        "log_loss_low_resolution": round(loss_of(made[0].curve, small), 4),
        "log_loss_without_pictures": round(made[0].baseline, 4),
      },
      "numpy",
      "jax",
    )
  )


if __name__ == "__main__":
  main()
