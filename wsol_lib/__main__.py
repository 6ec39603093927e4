"""The command line: ``python -m wsol_lib COMMAND``."""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from importlib import import_module

# command -> module with add_arguments(parser) and run(args) -> exit status, and what the command does
COMMANDS = {
    "book": ("wsol_lib.book.runner", "execute the chapters and build the HTML"),
    "evaluate": ("wsol_lib.evaluate", "score a folder of score maps, or a file of boxes"),
    "experiment": ("wsol_lib.book.experiments", "run the experiments of the book that are not finished, record them"),
    "join": ("wsol_lib.commands.join", "one file of the shards of predict"),
    "predict": ("wsol_lib.commands.predict", "boxes for a folder of photographs, as COCO JSON and a contact sheet"),
    "rescore": ("wsol_lib.book.rescore", "score kept boxes again and hold them against the record"),
    "search": ("wsol_lib.search.command", "search a method's hyperparameters, look at the test split once"),
    "train": ("wsol_lib.commands.train", "train a localizer on a data set and keep it"),
}


def _keep_freed_memory() -> None:
    """What ``CPU_SETTINGS`` of wsol_lib.book.runner do for a new process, for this one: see there why. Before torch starts."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        try:
            mallopt = ctypes.CDLL("libc.so.6").mallopt
        except (OSError, AttributeError):  # another C library
            return
        for name, value in ((-3, 2**31 - 1), (-1, 2**31 - 1), (-2, 2**28)):  # mmap threshold, trim threshold, top pad
            mallopt(name, value)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m wsol_lib", description="Weakly supervised object localization.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    command = parser.parse_known_args(argv)[0].command
    _keep_freed_memory()
    # only the module of the chosen command is imported: --help answers at once
    module = import_module(COMMANDS[command][0])
    subparser = argparse.ArgumentParser(
        prog=f"python -m wsol_lib {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(subparser)
    arguments = subparser.parse_args((sys.argv[1:] if argv is None else argv)[1:])
    try:
        return module.run(arguments)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: what was finished is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
