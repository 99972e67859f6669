"""Command line: python -m gdrt_lite doctor | fetch | run | study."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gdrt_lite.system.errors import GdrtError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a bad input ends with one sentence on stderr and exit status 1, Ctrl-C with 130."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (GdrtError, ValueError) as error:
        print(f"gdrt_lite: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\ngdrt_lite: interrupted. What was finished is kept; the same command{' with --resume' * hasattr(options, 'resume')} goes on from there.",
            file=sys.stderr,
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gdrt_lite", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")

    doctor = commands.add_parser("doctor", help="check this machine, with a remedy for what is missing")
    doctor.set_defaults(command=_doctor)

    fetch = commands.add_parser("fetch", help="fetch and convert the embedded model into the cache")
    fetch.set_defaults(command=_fetch)

    run = commands.add_parser("run", help="diagnose, tune by each objective, compare; write a report")
    run.add_argument("--profile", default=os.environ.get("GDRT_PROFILE") or "quick", help="quick, standard or full: sizes")
    run.add_argument("--model", help="smollm2-135m, pocket, a folder, or a hub name")
    run.add_argument("--data", help="movielens, movielens-100k, or a folder in the Amazon form")
    run.add_argument("--split", help="new_users, time, leave_one_out; for a folder also published: its files as they are")
    run.add_argument("--objectives", default="sft,balanced,gdrt", help="comma-separated (default: %(default)s)")
    run.add_argument("--tau", type=float, help="temperature of the group weights, nats")
    run.add_argument("--groups", type=int, help="number of token groups")
    run.add_argument("--seed", type=int, help="of the sampled windows, the adapters, the order of training")
    run.add_argument("--out", type=Path, default=Path("runs/latest"), help="folder of the report (default: %(default)s)")
    run.add_argument("--resume", action="store_true", help="go on where an earlier run with --out stopped")
    run.set_defaults(command=_run)

    study = commands.add_parser("study", help="run the declared grid, one JSON a cell; skips what is done")
    study.add_argument("--grid", type=Path, help="grid file (default: data/results/grid.yaml)")
    study.add_argument("--results", type=Path, help="folder of the cells (default: data/results/cells)")
    study.add_argument("--only", default="", help="run the cells whose key contains this text")
    study.add_argument("--report", action="store_true", help="render tables and figures from the cells, run nothing")
    study.set_defaults(command=_study)
    return parser


def _doctor(_: argparse.Namespace) -> int:
    from gdrt_lite.course import doctor

    return doctor.main()


def _fetch(_: argparse.Namespace) -> int:
    from gdrt_lite.system import assets

    print(f"model ready: {assets.smollm2_folder(verify=True)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from gdrt_lite.study import run

    overrides = {
        "model": options.model,
        "data": options.data,
        "split": options.split,
        "tau": options.tau,
        "k": options.groups,
        "seed": options.seed,
    }
    run.run(
        objectives=options.objectives.split(","),
        profile=options.profile,
        out=options.out,
        resume=options.resume,
        **{name: value for name, value in overrides.items() if value is not None},
    )
    return 0


def _study(options: argparse.Namespace) -> int:
    from gdrt_lite.study import grid

    return grid.main(options.grid, options.results, options.only, options.report)


if __name__ == "__main__":
    sys.exit(main())
