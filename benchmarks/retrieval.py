"""Times the metrics of retrieval or verification at MSMT17's size and prints a line of JSON.

python -m benchmarks.retrieval
python -m benchmarks.retrieval --verify
"""

import resource
import sys

import numpy as np

from benchmarks import measure
from hap_jax.metrics import calibration, rerank, retrieval, verification


def parse_args(argv=None):
  """Reads the command line. The default sizes are the sizes of MSMT17."""
  parser = measure.make_parser(__doc__)
  parser.add_argument("--queries", type=int, default=11659)
  parser.add_argument("--gallery", type=int, default=82161)
  parser.add_argument("--identities", type=int, default=3060)
  parser.add_argument("--cameras", type=int, default=15)
  parser.add_argument("--width", type=int, default=768, help="width of a feature; it is 2304 with the LEM")
  parser.add_argument(
    "--spread",
    type=float,
    default=2.5,
    help="standard deviation of features around their centre; that of the centres is 1",
  )
  parser.add_argument("--rerank", action="store_true", help="re-rank with k-reciprocal neighbours")
  parser.add_argument("--verify", action="store_true", help="time the verification instead")
  return parser.parse_args(argv)


def make_side(rng, centers, count, num_cameras, spread):
  """Draws random features around identity centres. Returns (features [count, D] float32, pid, camid)."""
  pid = np.arange(count) % len(centers)  # every identity gets about the same number of pictures
  features = rng.standard_normal((count, centers.shape[1]), dtype=np.float32)
  features *= np.float32(spread)
  features += centers[pid]
  return features, pid, rng.integers(num_cameras, size=count)


def time_scoring(args):
  """Scores random features and times it. Returns the line to print."""
  rng = np.random.default_rng(0)
  centers = rng.standard_normal((args.identities, args.width), dtype=np.float32)
  query, query_pid, query_camid = make_side(rng, centers, args.queries, args.cameras, args.spread)
  gallery, gallery_pid, gallery_camid = make_side(rng, centers, args.gallery, args.cameras, args.spread)
  ids = (query_pid, gallery_pid, query_camid, gallery_camid)
  if args.verify:
    return time_verification(args, query, gallery, ids)
  reranking = rerank.Reranking() if args.rerank else None
  scores, cpu, wall = measure.timed(lambda: retrieval.evaluate(query, gallery, *ids, reranking=reranking))
  found = {
    "cpu_seconds": round(cpu, 1),
    "wall_seconds": round(wall, 1),
    "peak_gib": round(peak_bytes() / 2**30, 2),
    "queries": args.queries,
    "gallery": args.gallery,
    "width": args.width,
    "rerank": args.rerank,
    "spread": args.spread,
    "metrics": {name: round(value, 4) for name, value in scores.metrics().items()},
    "chance_mAP": round(retrieval.chance_mean_ap(*ids), 4),
  }
  return measure.line("retrieval", found, "numpy")


def time_verification(args, query, gallery, ids):
  """Verifies features and times it. Returns the line to print. `ids`: persons and cameras of both sides."""
  found, cpu, wall = measure.timed(lambda: verification.evaluate(query, gallery, *ids))
  made, more_cpu, more_wall = measure.timed(lambda: calibration.calibrate(found.pairs))
  line = {
    "cpu_seconds": round(cpu + more_cpu, 1),
    "cpu_seconds_of_the_calibration": round(more_cpu, 1),
    "wall_seconds": round(wall + more_wall, 1),
    "peak_gib": round(peak_bytes() / 2**30, 2),
    "queries": args.queries,
    "gallery": args.gallery,
    "width": args.width,
    "spread": args.spread,
    "pairs": found.pairs.num_genuine + found.pairs.num_impostor,
    "score_error": float(f"{found.pairs.score_error:.2g}"),
    "eer": round(found.eer.value, 4),
    "tar": {goal: at and round(at.tar.value, 4) for goal, at in found.points.items()},
    "log_loss": {method: round(value, 4) for method, value in made.log_loss.items()},
  }
  return measure.line("verification", line, "numpy", "scipy")


def peak_bytes():
  """Returns the largest resident memory of this process so far, in bytes."""
  # ru_maxrss is in kilobytes on Linux and in bytes on macOS.
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(argv=None):
  measure.show(time_scoring(parse_args(argv)))


if __name__ == "__main__":
  main()
