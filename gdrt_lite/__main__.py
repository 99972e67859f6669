"""Command line: python -m gdrt_lite doctor | fetch | run | study."""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gdrt_lite.system.errors import GdrtError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a bad input ends with one sentence on stderr and exit status 1, a signal with 128 and its number."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a title may hold what the locale cannot print
    try:
        with _ended_by_signals():
            return options.command(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        print("gdrt_lite: nobody reads the output any more. What was finished is kept.", file=sys.stderr)
        return 1
    except (GdrtError, ValueError) as error:
        print(f"gdrt_lite: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"gdrt_lite: {where}{error.strerror or error}. What was finished is kept.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        again = "the same command with --resume" if hasattr(options, "resume") else "the same command"
        print(f"\ngdrt_lite: interrupted. What was finished is kept; {again} continues from there.", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does; one that is ignored, as under nohup, stays so."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number] or signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gdrt_lite", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")

    doctor = commands.add_parser("doctor", help="check this machine, with a remedy for what is missing")
    doctor.add_argument("--json", action="store_true", help="one JSON object, for the class check of an instructor")
    doctor.set_defaults(command=_doctor)

    fetch = commands.add_parser(
        "fetch", help="fetch the embedded model and MovieLens-100k into the cache, or the Amazon sets"
    )
    fetch.add_argument("what", nargs="?", default="model", choices=("model", "amazon"), help="default: %(default)s")
    fetch.set_defaults(command=_fetch)

    run = commands.add_parser("run", help="diagnose, tune by each objective, compare; write a report")
    run.add_argument("--profile", default=os.environ.get("GDRT_PROFILE") or "quick", help="quick, standard or full: sizes")
    run.add_argument("--objectives", default="sft,balanced,gdrt", help="comma-separated (default: %(default)s)")
    run.add_argument("--out", type=_folder, default=Path("runs/latest"), help="folder of the report (default: %(default)s)")
    run.add_argument("--resume", action="store_true", help="go on where an earlier run with --out stopped")
    run.add_argument(
        "--no-open", action="store_true", help="do not open the report, even where there is a browser and a screen"
    )
    _add_settings(run)
    run.set_defaults(command=_run)

    study = commands.add_parser("study", help="run the declared grid, one JSON file per cell; skips what is done")
    study.add_argument("--grid", type=Path, help="a grid of your own; without one, the registered study runs")
    study.add_argument("--results", type=_folder, help="folder of your grid's cells (default: cells, beside it)")
    study.add_argument("--only", default="", help="run the cells whose key contains this text")
    study.add_argument("--report", action="store_true", help="render tables and figures from the cells, run nothing")
    study.set_defaults(command=_study)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from gdrt_lite.course import doctor

    return doctor.main(options.json)


def _fetch(options: argparse.Namespace) -> int:
    from gdrt_lite.system import amazon, assets

    if options.what == "amazon":
        print(f"data ready: {amazon.fetch()}. Name a set as amazon/Book, amazon/Office or amazon/Clothing.")
        return 0
    print(f"model ready: {assets.smollm2_folder(verify=True)}")
    try:
        print(f"second data set, for notebook 08, ready: {assets.movielens_100k(verify=True)}")
    except GdrtError as error:  # a section of one notebook alone needs it
        print(f"gdrt_lite: without the second data set of notebook 08: {error}", file=sys.stderr)
    return 0


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """One option per setting of a `Config`; the method is chosen with --objectives."""
    from gdrt_lite.study.config import Config

    group = parser.add_argument_group("settings", "each replaces the value of the profile")
    for field in dataclasses.fields(Config):
        if field.name == "method":
            continue
        names = [f"--{field.name}", *({f"--{field.name.replace('_', '-')}"} - {f"--{field.name}"})]
        choices = list(field.metadata["choices"]) or None
        if isinstance(field.default, bool):
            group.add_argument(*names, action=argparse.BooleanOptionalAction, default=None, help=field.metadata["help"])
        elif isinstance(field.default, tuple):
            group.add_argument(*names, nargs="+", choices=choices, help=field.metadata["help"])
        elif field.default is dataclasses.MISSING:  # a mapping
            group.add_argument(*names, nargs="+", type=_named_value, metavar="NAME=VALUE", help=field.metadata["help"])
        else:
            group.add_argument(*names, type=type(field.default), choices=choices, help=field.metadata["help"])


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a folder has a name")
    return Path(text)


def _named_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, value


def _run(options: argparse.Namespace) -> int:
    from gdrt_lite.study import run
    from gdrt_lite.study.config import Config

    given = {name: value for name, value in vars(options).items() if value is not None}
    settings = {f.name: given[f.name] for f in dataclasses.fields(Config) if f.name in given}
    settings |= {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
    for name, number in (("parameters", float), ("columns", str)):
        if name in settings:
            settings[name] = {key: number(value) for key, value in settings[name]}
    run.run(objectives=options.objectives.split(","), **{n: given[n] for n in ("profile", "out", "resume")}, **settings)
    if not options.no_open and _has_screen():
        webbrowser.open((options.out / "report.html").resolve().as_uri())
    return 0


def _has_screen() -> bool:
    """Whether a page may be opened: a person watches at a screen of this machine, and no automatic build or remote shell."""
    display = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(display and sys.stdout.isatty() and not {"CI", "SSH_CONNECTION"} & os.environ.keys())


def _study(options: argparse.Namespace) -> int:
    from gdrt_lite.study import grid

    if options.grid:
        return grid.main(options.grid, options.results, options.only, options.report)
    if options.results:
        raise ValueError("--results names the cells of a grid of your own; name the grid too, with --grid.")
    return grid.registered(options.only, options.report)


if __name__ == "__main__":
    sys.exit(main())
