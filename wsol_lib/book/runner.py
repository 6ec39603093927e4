"""The book: executes the chapters and builds one HTML site of them.

Each chapter of ``book/`` is executed by papermill into ``_build/PROFILE/``; a chapter whose text, library and parameters,
and whose records if it shows some, are those of its last run is not run again. Then jupyter-book turns the executed
chapters and the pages of ``book/`` into ``_build/html``, with warnings as errors, and :mod:`wsol_lib.book.site` mends what
its theme makes heavy or wrong. Nothing in ``book/`` is ever written.
"""

from __future__ import annotations

import argparse
import ast
import filecmp
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wsol_lib.book import site
from wsol_lib.book.profiles import PROFILES, get_profile
from wsol_lib.cache import atomic_path, library_fingerprint
from wsol_lib.data import load_dataset

EXAMPLES = """examples:
  python -m wsol_lib book                                   all chapters, quick profile, no data needed
  python -m wsol_lib book --chapters 02 --no-html           one chapter, executed to _build/quick/
  python -m wsol_lib book --profile tiny --data-root DATA   real photographs: DATA/tiny-imagenet-200
"""

#: Beside the pages: what they were made of.
MADE_OF = Path("_build", "html.json")

# Freed memory stays with the process: on virtual machines the page faults of giving it back and taking it again
# otherwise cost more than the convolutions (a factor of two to four in efficientnet_lite0's images a second).
CPU_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
    # threads that wait for each other sleep instead of spinning: nothing lost on a quiet machine, a factor of four won
    # where another program wants the same cores
    "OMP_WAIT_POLICY": "PASSIVE",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--profile", default="quick", help=f"{', '.join(PROFILES)} (default: quick)")
    parser.add_argument(
        "--chapters",
        nargs="+",
        metavar="NN",
        help="execute only these, by number or name (default: all); the other pages show their last run, or no outputs",
    )
    parser.add_argument("--data-root", default="", help="folder with the real data (default: $WSOL_DATA)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="execute finished chapters again")
    parser.add_argument("--no-html", action="store_true", help="only execute")
    parser.add_argument("--record", action="store_true", help="write the measurements to results/, to be committed")


def run(args: argparse.Namespace) -> int:
    root = Path.cwd()
    chapters = select_chapters(root, args.chapters)
    data_root = str(Path(args.data_root).expanduser().resolve()) if args.data_root else ""
    # absolute, because the kernels work in book/ and nothing may be written there
    os.environ["WSOL_CACHE"] = os.path.abspath(os.environ.get("WSOL_CACHE") or root / "_build" / "cache")
    if os.environ.get("WSOL_DATA"):
        os.environ["WSOL_DATA"] = os.path.abspath(os.environ["WSOL_DATA"])
    os.environ["WSOL_RECORDS"] = str(root / "results")
    os.environ["WSOL_RESULTS"] = str(root / "results" if args.record else root / "_build" / "results")
    profile = get_profile(args.profile)
    if profile.real_dataset:  # says what is missing before anything runs; decodes the images once for all chapters
        if not data_root and not os.environ.get("WSOL_DATA"):
            raise FileNotFoundError(
                f"expected the folder that holds {profile.real_dataset} as --data-root or in WSOL_DATA, found neither: "
                "name it; book/getting-the-data.md has the command that fetches the data"
            )
        load_dataset(profile.real_dataset, "test", data_root or None)
    parameters = {"profile": args.profile, "seed": args.seed, "data_root": data_root}
    failures = execute_chapters(root, chapters, parameters, force=args.force or args.record)
    if failures:
        print(f"{len(failures)} of {len(chapters)} chapters failed; the HTML was not built:", file=sys.stderr)
        for failure in failures:
            print(failure, file=sys.stderr)
        return 1
    return 0 if args.no_html else build_html(root, parameters)


def select_chapters(root: Path, wanted: list[str] | None) -> list[Path]:
    """The chapters of ``root/book`` in reading order, what has no number last, or those whose number or name is wanted."""
    chapters = sorted((root / "book").glob("*.ipynb"))
    if not chapters or not (root / "_config.yml").exists():
        raise FileNotFoundError(
            f"expected the book's repository, a folder with _config.yml and notebooks in book/, found {root}: "
            "change there first"
        )
    if not wanted:
        return chapters
    selected = [chapter for chapter in chapters if chapter.stem in wanted or chapter.stem[:2] in wanted]
    unknown = [name for name in wanted if not any(name in (chapter.stem, chapter.stem[:2]) for chapter in chapters)]
    if unknown:
        known = ", ".join(chapter.stem for chapter in chapters)
        raise ValueError(f"expected chapters out of {known}, found {', '.join(unknown)}: name them or their numbers")
    return selected


def execute_chapters(root: Path, chapters: list[Path], parameters: dict, *, force: bool) -> list[str]:
    """Execute what is not finished yet; one line a chapter on the way. Returns a report for each failure."""
    kernel = _install_kernel(root)
    failures = []
    with tqdm(chapters, desc="chapters", unit="chapter") as bar:
        for chapter in bar:
            bar.set_postfix_str(chapter.stem)
            output = root / "_build" / parameters["profile"] / chapter.name
            stamp = output.with_suffix(".json")
            key = _key(chapter, parameters, root / "results")
            if not force and output.exists() and _finished(stamp).get("key") == key:
                bar.write(f"{chapter.stem:24s} unchanged (took {_finished(stamp)['seconds']:.0f} s)")
                continue
            start = time.perf_counter()
            failure = _execute(chapter, output, parameters, kernel)
            seconds = time.perf_counter() - start
            bar.write(f"{chapter.stem:24s} {'FAILED after' if failure else 'done in'} {seconds:.0f} s")
            if failure:
                failures.append(failure)
                continue
            with atomic_path(stamp) as temporary:
                temporary.write_text(json.dumps({"key": key, "seconds": seconds}))
    return failures


def _key(chapter: Path, parameters: dict, results: Path) -> str:
    text = chapter.read_bytes()
    parts = [text, library_fingerprint().encode(), json.dumps(parameters, sort_keys=True).encode()]
    folders = [chapter.parent]  # the printed tables and the claims
    if any(word in text for word in (b"results.load(", b"claims.recorded(", b"records.")):
        folders.append(results)
    parts += [
        path.read_bytes() for folder in folders for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.json")])
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _finished(stamp: Path) -> dict:
    """Key and seconds of a chapter's last run; empty if it has not run, or its stamp is damaged: then it runs again."""
    try:
        kept = json.loads(stamp.read_bytes())
        return {"key": str(kept["key"]), "seconds": float(kept["seconds"])}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _install_kernel(root: Path) -> str:
    """A kernel of our own: this very interpreter and library, whatever kernels and settings the reader has."""
    folder = root / "_build" / "jupyter" / "kernels" / "wsol-book"
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "env": {
            **CPU_SETTINGS,
            **{name: os.environ[name] for name in CPU_SETTINGS if name in os.environ},
            "IPYTHONDIR": str(root / "_build" / "ipython"),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # another one would leave the figures out
            "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
        },
    }
    with atomic_path(folder / "kernel.json") as temporary:
        temporary.write_text(json.dumps(spec))
    os.environ["JUPYTER_PATH"] = str(root / "_build" / "jupyter")
    return folder.name


def _execute(chapter: Path, output: Path, parameters: dict, kernel: str) -> str | None:
    """Run one chapter; the executed copy appears when all of it ran. Returns what went wrong, or None."""
    import nbformat
    import papermill

    partial = output.with_suffix(".partial.ipynb")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        executed = papermill.execute_notebook(
            chapter, partial, parameters, kernel_name=kernel, language="python", cwd=chapter.parent, progress_bar=False
        )
        del executed.metadata["papermill"]  # paths of this machine, and the page offers the notebook for download
        for cell in executed.cells:
            _prepare(cell)
        nbformat.write(executed, partial)
        output.with_suffix(".json").unlink(missing_ok=True)  # the stamp of the copy that is replaced now
        os.replace(partial, output)
    except papermill.PapermillExecutionError as error:
        first_line = error.source.strip().splitlines()[0]
        return (
            f"  {chapter.stem}, cell {error.cell_index} (`{first_line}`): {error.ename}: {error.evalue}\n"
            f"    the cells up to there: {partial}"
        )
    except Exception as error:  # a kernel that died, a notebook that is none: the other chapters still run
        return f"  {chapter.stem}: {type(error).__name__}: {error}"
    return None


def _prepare(cell: Any) -> None:
    """Say by an executed cell's metadata how its page shows it."""
    tags = cell.metadata.get("tags", [])
    if "injected-parameters" in tags:  # the page shows the parameters once, as they were written
        cell.metadata.tags.append("remove-cell")
    if cell.cell_type != "code":
        return
    if re.fullmatch(r"plots\.show_source\([\w.]+\)", cell.source.strip()):  # the listing itself is enough
        cell.metadata["tags"] = [*tags, "remove-input"]
    elif {"hide-input", "hide-cell"} & set(tags):
        shown = cell.metadata.setdefault("mystnb", {})
        shown.setdefault("code_prompt_show", f"Show {_what_it_is(cell)}")
        shown.setdefault("code_prompt_hide", re.sub("^Show", "Hide", shown["code_prompt_show"]))


def _what_it_is(cell: Any) -> str:
    """What the code of a cell is for, in a few words: what it shows, or what it defines."""
    kinds = {kind: value for output in cell.outputs for kind, value in output.get("data", {}).items()}
    page = "".join(kinds.get("text/html", ""))
    if 'id="slider-' in page:
        return "the code of this slider"
    if any(kind.startswith("image/") for kind in kinds):
        return "the code of this figure"
    if "<table" in page or "\n|---" in "".join(kinds.get("text/markdown", "")):
        return "the code of this table"
    if cell.outputs:
        return "the code behind this"
    if "google.colab" in cell.source:
        return "the installation on Colab"
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:  # of IPython's own
        return "the code"
    defined = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    if any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body) and not defined:
        return "the imports"
    if not defined and re.search(r"^ *check\(", cell.source, flags=re.MULTILINE):
        return "what checks these sentences"
    defined += [
        target.id
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return "the code of " + ", ".join(defined[:4]) if defined else "the code"


def build_html(root: Path, parameters: dict) -> int:
    """Render the executed chapters and the pages to ``_build/html``; what was not executed appears without outputs."""
    source, doctrees = root / "_build" / "source", root / "_build" / ".doctrees"
    (root / MADE_OF).unlink(missing_ok=True)
    made_of = _made_of(root, parameters)
    _stage(root, source, parameters["profile"])
    start = time.perf_counter()
    # Sphinx warns of a page once and then takes it from its memory: only a build without warnings may be built upon.
    clean = doctrees / "clean"
    if not clean.exists():
        shutil.rmtree(doctrees, ignore_errors=True)
    clean.unlink(missing_ok=True)
    main = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", main, "build", str(source), "--path-output", str(root)]
    command += ["-W", "--keep-going"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        said = re.sub(r"\x1b\[[\d;]*m", "", built.stdout + built.stderr)  # without the colours
        lines = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
        print("\n".join(lines) or said, file=sys.stderr)
        print("error: the HTML has warnings, which count as errors: mend the lines above", file=sys.stderr)
        return 1
    site.mend(root / "_build" / "html")
    clean.touch()
    with atomic_path(root / MADE_OF) as temporary:
        temporary.write_text(json.dumps({"parameters": parameters, "sources": made_of}))
    print(f"HTML in {time.perf_counter() - start:.0f} s: {root / '_build' / 'html' / 'index.html'}")
    return 0


def changed_since_built(root: Path) -> list[str]:
    """Of what the pages in ``_build/html`` were made of, what is another now: files of the book, or ``wsol_lib``.

    A chapter counts as changed also if its page shows the run of an earlier library, or of other records. Without word of what
    the pages were made of, as after a build that failed, all has changed.
    """
    try:
        kept = json.loads((root / MADE_OF).read_bytes())
        parameters, then = kept["parameters"], dict(kept["sources"])
        now = _made_of(root, parameters)
    except (OSError, ValueError, TypeError, KeyError):
        return ["book", "wsol_lib"]
    return [name for name in sorted(then | now) if not then.get(name) or then[name] != now.get(name)]


def _made_of(root: Path, parameters: dict) -> dict[str, str]:
    """Name -> hash of what a page is made of; of a chapter whose last run was of something else, nothing."""
    paths = [root / "_config.yml", root / "_toc.yml", *sorted((root / "book").rglob("*"))]
    found = {"wsol_lib": library_fingerprint()}
    for path in filter(Path.is_file, paths):
        if path.suffix == ".ipynb":
            key = _key(path, parameters, root / "results")
            stamp = root / "_build" / parameters["profile"] / f"{path.stem}.json"
            digest = key if _finished(stamp).get("key") == key else ""
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found[path.relative_to(root).as_posix()] = digest
    return found


def _stage(root: Path, source: Path, profile: str) -> None:
    """Bring ``source`` up to date: what did not change keeps its time stamp, so that sphinx renders only what did."""
    wanted = {name: root / name for name in ("_config.yml", "_toc.yml")}
    wanted |= {str(path.relative_to(root)): path for path in sorted((root / "book").rglob("*")) if path.is_file()}
    for name in wanted:
        executed = root / "_build" / profile / Path(name).name
        if name.endswith(".ipynb") and executed.exists():
            wanted[name] = executed
        elif name.endswith(".ipynb"):
            print(f"{executed.stem:24s} not executed in the {profile} profile: its page has no outputs")
    for path in source.rglob("*"):
        if path.is_file() and str(path.relative_to(source)) not in wanted:
            path.unlink()
    for name, path in wanted.items():
        target = source / name
        if not target.exists() or not filecmp.cmp(path, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
