"""Scripts that fetch data: they end with the published counts or with one sentence, and run again they finish."""

import hashlib
import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from functools import partial
from pathlib import Path

import _archives as archives
import pooch
import pytest
import requests
import standins

SCRIPTS = Path(__file__).parents[1] / "data_scripts"


def load(name, monkeypatch):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state(root):
    """Every file below ``root``, with its time and size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def checksum(path, kind="md5"):
    return f"{kind}:{pooch.file_hash(str(path), alg=kind)}"


@pytest.fixture
def served(monkeypatch):
    """URL -> file that a download of it yields; every other one fails. Counts the downloads in ``served.asked``."""

    class Served(dict):
        pass

    served = Served()
    served.asked = []

    def download(url, output, _, part):
        served.asked.append(url)
        if url not in served:
            raise requests.ConnectionError("unreachable")
        shutil.copy(served[url], output)

    monkeypatch.setattr(archives, "_download", download)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return served


# --- tiny_imagenet.py


@pytest.fixture
def archive(tmp_path):
    """The stand-in as a zip in a folder of its own."""
    folder = standins.tiny_imagenet(tmp_path / "source")
    path = standins.zipped(folder)
    shutil.rmtree(folder)
    return path


@pytest.fixture
def script(archive, monkeypatch):
    """The script as a module that expects the stand-in."""
    module = load("tiny_imagenet", monkeypatch)
    monkeypatch.setattr(module, "CHECKSUM", checksum(archive))
    monkeypatch.setattr(module, "COUNTS", {"classes": 3, "training images": 36, "validation images": 6})
    return module


def test_an_archive_of_ones_own_is_unpacked_and_counted(script, archive, tmp_path, capsys):
    assert script.main(["--root", str(tmp_path / "data"), "--archive", str(archive)]) == 0
    assert "3 classes, 36 training images, 6 validation images, as published" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["tiny-imagenet-200"]
    with zipfile.ZipFile(archive) as opened:
        for member in opened.namelist():
            if not member.endswith("/"):
                assert (tmp_path / "data" / member).read_bytes() == opened.read(member)


def test_run_again_it_does_nothing(script, archive, tmp_path):
    arguments = ["--root", str(tmp_path / "data"), "--archive", str(archive)]
    assert script.main(arguments) == 0
    before = state(tmp_path / "data")
    archive.unlink()
    assert script.main(arguments) == 0
    assert state(tmp_path / "data") == before


def test_check_only_verifies(script, archive, tmp_path, capsys):
    root = tmp_path / "data"
    assert script.main(["--root", str(root), "--archive", str(archive), "--check"]) == 2
    assert capsys.readouterr().err.startswith("error: expected") and not root.exists()
    assert script.main(["--root", str(root), "--archive", str(archive)]) == 0
    assert script.main(["--root", str(root), "--check"]) == 0
    (root / "tiny-imagenet-200" / "val" / "images" / "val_3.JPEG").unlink()
    assert script.main(["--root", str(root), "--check"]) == 2
    assert "6 validation images in" in (error := capsys.readouterr().err) and "found 3 classes, 36" in error


def test_the_download_is_verified_kept_and_unpacked(script, archive, tmp_path, served):
    served[script.URL] = tmp_path / "served"
    served[script.URL].write_bytes(archive.read_bytes()[:-1])
    assert script.main(["--root", str(tmp_path / "data")]) == 2
    assert list((tmp_path / "data").iterdir()) == []
    served[script.URL].write_bytes(archive.read_bytes())
    assert script.main(["--root", str(tmp_path / "data")]) == 0
    served.clear()
    shutil.rmtree(tmp_path / "data" / "tiny-imagenet-200")
    assert script.main(["--root", str(tmp_path / "data")]) == 0


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_an_archive_cut_short_is_refused_by_its_checksum(script, archive, tmp_path, capsys, keep):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content))])
    assert script.main(["--root", str(tmp_path / "data"), "--archive", str(archive)]) == 2
    assert "it is cut short, damaged or another file" in capsys.readouterr().err
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_archive_is_named(script, tmp_path, capsys):
    assert script.main(["--root", str(tmp_path / "data"), "--archive", str(tmp_path / "none.zip")]) == 2
    assert "none.zip, found no such file" in capsys.readouterr().err


def test_the_script_runs_from_a_clone_and_prints_one_sentence(archive, tmp_path):
    command = [sys.executable, SCRIPTS / "tiny_imagenet.py", "--root", tmp_path / "data", "--archive", archive]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPTS.parent)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: expected md5:90528d7ca1a48142e341f4ef8d21d0de of")
        and done.stderr.count("\n") == 1
    )


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("kind", "code", "left"), [(signal.SIGTERM, 143, 0), (signal.SIGKILL, -signal.SIGKILL, 1)])
def test_after_a_killed_run_the_next_one_finishes(script, archive, tmp_path, monkeypatch, kind, code, left):
    """In a process of its own that stops in the middle and is then killed, politely or not."""
    root, halfway, calls = tmp_path / "data", tmp_path / "halfway", []
    whole = shutil.copyfileobj

    def copy(*args):
        calls.append(1)
        if len(calls) == 20:
            halfway.touch()
            time.sleep(60)
        return whole(*args)

    arguments = ["--root", str(root), "--archive", str(archive)]
    run = multiprocessing.get_context("fork").Process(target=script.start, args=[partial(script.main, arguments)])
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", copy)
        run.start()
    while not halfway.exists() and run.is_alive():
        time.sleep(0.01)
    assert len(list(root.rglob("*.JPEG"))) > 0
    os.kill(run.pid, kind)
    run.join(30)
    assert run.exitcode == code and len(list(root.iterdir())) == left
    assert script.main(arguments) == 0
    assert [path.name for path in root.iterdir()] == ["tiny-imagenet-200"]


def test_a_second_run_waits_for_the_first_and_both_end_well(script, archive, tmp_path, monkeypatch):
    """Two real processes; the second begins while the first is in the middle."""
    root, halfway, go_on, whole = tmp_path / "data", tmp_path / "halfway", tmp_path / "go on", shutil.copyfileobj
    calls = []

    def copy(*args):
        calls.append(1)
        if len(calls) == 20:
            halfway.touch()
            while not go_on.exists():
                time.sleep(0.01)
        return whole(*args)

    def run(said):
        with open(said, "w") as sys.stderr:
            sys.exit(script.main(["--root", str(root), "--archive", str(archive)]))

    fork = multiprocessing.get_context("fork")
    first, second = (fork.Process(target=run, args=[tmp_path / said]) for said in ("first", "second"))
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", copy)
        first.start()
    try:
        while not halfway.exists() and first.is_alive():
            time.sleep(0.01)
        before = state(root)
        second.start()
        while second.is_alive() and not (said := (tmp_path / "second").exists() and (tmp_path / "second").read_text()):
            time.sleep(0.01)
        assert said == f"another run is at work in {root}: this one waits until it has ended\n"
        assert state(root) == before
        assert script.main(["--root", str(root), "--check"]) == 2, "which does not wait"
        go_on.touch()
        first.join(60)
        second.join(60)
        assert (first.exitcode, second.exitcode) == (0, 0)
    finally:
        for process in (first, second):
            if process.pid:
                process.kill()
                process.join()
    assert [path.name for path in root.iterdir()] == ["tiny-imagenet-200"]
    assert script.main(["--root", str(root), "--check"]) == 0


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/data"])
def test_a_root_that_cannot_be_is_named(script, archive, tmp_path, capsys, place):
    (tmp_path / "file").touch()
    assert script.main(["--root", str(tmp_path / place), "--archive", str(archive)]) == 2
    assert "error: expected a data root that can be read and written at" in capsys.readouterr().err


# --- the public lists, and the three scripts that read them

LISTS = {
    "CUB": {
        "train": ["001.Auk/a.jpg", "002.Wren/b.jpg"],
        "val": ["001.Auk/301.jpg", "002.Wren/302.jpg"],
        "test": ["002.Wren/c.jpg"],
    },
    "ILSVRC": {
        "train": ["train/n01/n01_1.JPEG", "train/n01/n01_2.JPEG", "train/n02/n02_1.JPEG"],
        "val": ["val2/0/0.jpeg", "val2/0/1.jpeg", "val2/1/0.jpeg"],
        "test": ["val/ILSVRC2012_val_00000001.JPEG"],
    },
    "OpenImages": {"train": ["train/0bt/1.jpg"], "val": ["val/0bt/2.jpg"], "test": ["test/0bt/3.jpg"]},
}
SPLITS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}


def size(image_id):
    return 20 + sum(map(ord, image_id)) % 50, 30


def masks(image_id):
    stem = image_id.removesuffix(".jpg")
    return [f"{stem}_m0.png", f"{stem}_m1.png", f"{stem}_ignore.png"]


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tarred(folder, path, *members, top=""):
    """The files below ``folder`` as a tar, compressed if the name says so."""
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as opened:
        for member in members or sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file()):
            opened.add(folder / member, Path(top) / member)
    return path


@pytest.fixture
def lists(tmp_path, served, monkeypatch):
    """Small lists, served where the real ones are, and scripts that expect them."""
    folder = tmp_path / "source" / "lists"
    for name, splits in LISTS.items():
        for split, image_ids in splits.items():
            rows = {
                "class_labels.txt": [f"{image_id},0" for image_id in image_ids],
                "image_sizes.txt": ["{},{},{}".format(image_id, *size(image_id)) for image_id in image_ids],
                "localization.txt": [
                    ",".join([image_id, mask, ignore])
                    for image_id in image_ids
                    for mask, ignore in [(masks(image_id)[0], masks(image_id)[2]), (masks(image_id)[1], "")]
                ],
            }
            for file, lines in rows.items():
                write(folder / "metadata" / name / split / file, "\n".join(lines).encode())
    write(folder / "README.md")
    import _common

    served[_common.LISTS_URL] = tarred(folder, tmp_path / "source" / "lists.tar.gz", top="wsolevaluation-96f4b88")
    trees = {name: _common._git_id(folder / "metadata" / name).hex() for name in LISTS}
    monkeypatch.setattr(_common, "LISTS_TREES", trees)
    return _common


def counts(name):
    return {split: len(LISTS[name][folder]) for split, folder in SPLITS.items()}


@pytest.fixture
def cub(tmp_path, lists, served, monkeypatch):
    """cub.py, with its archives served and beside."""
    module = load("cub", monkeypatch)
    source = tmp_path / "source" / "cub"
    for image_id in LISTS["CUB"]["train"] + LISTS["CUB"]["test"]:
        write(source / "CUB_200_2011" / "images" / image_id)
    write(source / "CUB_200_2011" / "images.txt")
    write(source / "attributes.txt")
    for image_id in LISTS["CUB"]["val"]:
        write(tmp_path / "source" / "cubv2" / image_id, standins.jpeg(size=size(image_id)))
    served[module.URL] = tarred(source, tmp_path / "source" / "CUB_200_2011.tgz")
    module.cubv2 = tarred(tmp_path / "source" / "cubv2", tmp_path / "source" / "CUBV2.tar")
    monkeypatch.setattr(module, "CHECKSUM", checksum(served[module.URL]))
    monkeypatch.setattr(module, "COUNTS", counts("CUB"))
    return module


def test_cub_and_cubv2_come_with_their_lists(cub, tmp_path, capsys):
    root = tmp_path / "data"
    assert cub.main(["--root", str(root), "--cubv2", str(cub.cubv2)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "CUB train-weaksup: 2 images, as published",
        "CUB train-fullsup: 2 images, as published",
        "CUB test: 1 images, as published",
    ]
    assert sorted(p.name for p in root.iterdir()) == ["CUBV2", "CUB_200_2011", "CUB_200_2011.tgz", "wsolevaluation"]
    assert (root / "CUB_200_2011" / "images.txt").is_file() and (root / "wsolevaluation" / "README.md").is_file()


def test_cub_without_cubv2_says_how_to_get_it_and_goes_on_from_there(cub, tmp_path, capsys, served):
    root = tmp_path / "data"
    assert cub.main(["--root", str(root)]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == ["CUB train-weaksup: 2 images, as published", "CUB test: 1 images, as published"]
    assert "found 0 (001.Auk/301.jpg is not there): get CUBV2.tar with a browser" in err
    before, served.asked = state(root), []
    assert cub.main(["--root", str(root), "--cubv2", str(cub.cubv2)]) == 0
    assert served.asked == [] and before.items() <= {**state(root), root: before.get(root)}.items()
    before = state(root)
    assert cub.main(["--root", str(root), "--cubv2", str(cub.cubv2)]) == 0 and state(root) == before


def test_cub_takes_an_archive_and_downloads_only_lists(cub, tmp_path, served, lists, capsys):
    mine = shutil.move(served.pop(cub.URL), tmp_path / "mine.tgz")
    arguments = ["--root", str(tmp_path / "data"), "--archive", str(mine), "--cubv2", str(cub.cubv2)]
    assert cub.main(arguments) == 0 and served.asked == [lists.LISTS_URL]
    Path(mine).write_bytes(b"other")
    shutil.rmtree(tmp_path / "data" / "CUB_200_2011")
    assert cub.main(arguments) == 2 and f"expected {cub.CHECKSUM} of {mine}, found md5:" in capsys.readouterr().err


@pytest.mark.parametrize("split", SPLITS)
def test_check_names_the_image_that_is_missing(cub, tmp_path, capsys, split):
    root = tmp_path / "data"
    assert cub.main(["--root", str(root), "--cubv2", str(cub.cubv2)]) == 0
    image_id = LISTS["CUB"][SPLITS[split]][-1]
    (root / ("CUBV2" if split == "train-fullsup" else "CUB_200_2011/images") / image_id).unlink()
    before = state(root)
    capsys.readouterr()
    assert cub.main(["--root", str(root), "--cubv2", str(cub.cubv2), "--check"]) == 2
    out, err = capsys.readouterr()
    expected = counts("CUB")[split]
    assert f"expected {expected} images of CUB {split} in {root}, found {expected - 1} ({image_id} is not there)" in err
    assert err.count("\n") == 1 and len(out.splitlines()) == 2 and state(root) == before


def test_check_downloads_nothing(cub, tmp_path, capsys, served):
    assert cub.main(["--root", str(tmp_path / "data"), "--cubv2", str(cub.cubv2), "--check"]) == 2
    assert "expected the public lists in" in capsys.readouterr().err
    assert served.asked == [] and not (tmp_path / "data").exists()


def test_a_count_that_is_not_the_published_one_is_an_error(cub, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(cub.COUNTS, "test", 2)
    assert cub.main(["--root", str(tmp_path / "data"), "--cubv2", str(cub.cubv2)]) == 2
    assert "expected 2 images of CUB test" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["a missing image", "another size", "no image", "cut between two images"])
def test_a_cubv2_that_is_not_the_listed_one_is_refused_as_a_whole(cub, tmp_path, capsys, damage):
    """There is no checksum of it."""
    source = tmp_path / "source" / "cubv2"
    last = source / LISTS["CUB"]["val"][-1]
    if damage == "a missing image":
        tarred(source, cub.cubv2, LISTS["CUB"]["val"][0])
    elif damage == "cut between two images":
        with tarfile.open(cub.cubv2) as opened:
            at = opened.getmembers()[1].offset
        cub.cubv2.write_bytes(cub.cubv2.read_bytes()[:at])
    else:
        last.write_bytes(standins.jpeg(size=(5, 5)) if damage == "another size" else b"html")
        tarred(source, cub.cubv2)
    root = tmp_path / "data"
    assert cub.main(["--root", str(root), "--cubv2", str(cub.cubv2)]) == 2
    found = "5 x 5 pixels" if damage == "another size" else "no image"
    message = f"expected 002.Wren/302.jpg of {size('002.Wren/302.jpg')[0]} x 30 pixels in {cub.cubv2}, found {found}: "
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in root.iterdir()) == ["CUB_200_2011", "CUB_200_2011.tgz", "wsolevaluation"]


# stages of cub.py at which it is interrupted: while it downloads or unpacks lists, birds, CUBV2
@pytest.mark.parametrize(("function", "n"), [("_download", 0), ("_download", 1), *(("_write", n) for n in range(3))])
def test_interrupted_anywhere_it_finishes_when_run_again(cub, tmp_path, monkeypatch, function, n):
    arguments = ["--root", str(tmp_path / "data"), "--cubv2", str(cub.cubv2)]
    whole, calls = getattr(archives, function), []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) > n:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(archives, function, interrupted)
        with pytest.raises(KeyboardInterrupt):
            cub.main(arguments)
    assert not list((tmp_path / "data").glob(".*"))
    assert cub.main(arguments) == 0


def test_lists_that_are_not_the_published_ones_are_refused(cub, tmp_path, capsys, served, lists):
    good = served[lists.LISTS_URL].read_bytes()
    write(tmp_path / "source" / "lists" / "metadata" / "OpenImages" / "test" / "class_labels.txt", b"other")
    tarred(tmp_path / "source" / "lists", served[lists.LISTS_URL], top="wsolevaluation-96f4b88")
    root = tmp_path / "data"
    assert cub.main(["--root", str(root)]) == 2
    assert "expected the published lists in" in capsys.readouterr().err and list(root.iterdir()) == []
    served[lists.LISTS_URL].write_bytes(good)
    assert cub.main(["--root", str(root), "--cubv2", str(cub.cubv2)]) == 0
    write(root / "wsolevaluation" / "metadata" / "CUB" / "test" / "class_labels.txt", b"other")
    assert cub.main(["--root", str(root), "--check"]) == 2
    assert "move the folder wsolevaluation away" in capsys.readouterr().err


def test_a_copy_of_the_lists_that_is_there_is_left_alone(cub, tmp_path, served, lists):
    root = tmp_path / "data"
    shutil.copytree(tmp_path / "source" / "lists", root / "wsolevaluation")
    write(root / "wsolevaluation" / "mine.txt")
    assert cub.main(["--root", str(root), "--cubv2", str(cub.cubv2)]) == 0
    assert served.asked == [cub.URL] and (root / "wsolevaluation" / "mine.txt").is_file()


def test_git_names_of_files_and_folders(lists, tmp_path):
    """As ``git hash-object`` and ``git write-tree`` name them; a folder sorts as if its name ended with a slash."""
    write(tmp_path / "t" / "a.txt", b"hello\n")
    assert lists._git_id(tmp_path / "t" / "a.txt").hex() == "ce013625030ba8dba906f756967f9e9ca394464a"
    write(tmp_path / "t" / "a" / "x", b"hello\n")
    assert lists._git_id(tmp_path / "t").hex() == "a9bae932899dbd616007c2ec028e2f137cef0266"


@standins.needs("wsolevaluation")
@pytest.mark.parametrize("name", ["CUB", "OpenImages"])
def test_the_real_lists_are_the_published_ones(name, monkeypatch):
    import _common

    _common.get_lists(Path(os.environ["WSOL_DATA"]), name, check_only=True)


@pytest.fixture
def openimages(tmp_path, lists, monkeypatch):
    module = load("openimages", monkeypatch)
    source = tmp_path / "source"
    for split, image_ids in LISTS["OpenImages"].items():
        for image_id in image_ids:
            write(source / "images" / image_id)
            for mask in masks(image_id) if split != "train" else []:
                write(source / "masks" / mask)
    module.archives = []
    for name in ("images", "masks"):
        with zipfile.ZipFile(source / f"{name}.zip", "w") as opened:
            for path in (source / name).rglob("*"):
                opened.write(path, path.relative_to(source / name))
        module.archives.append(source / f"{name}.zip")
    monkeypatch.setattr(module, "COUNTS", counts("OpenImages"))
    monkeypatch.setattr(module, "MASKS", {"train-fullsup": 3, "test": 3})
    return module


def test_openimages_and_its_masks_come_from_two_files(openimages, tmp_path, capsys):
    root = tmp_path / "data"
    arguments = ["--root", str(root), "--archives", *map(str, openimages.archives)]
    assert openimages.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "OpenImages train-weaksup: 1 images, as published",
        "OpenImages train-fullsup: 1 images, as published",
        "OpenImages test: 1 images, as published",
        "OpenImages train-fullsup: 3 masks, as published",
        "OpenImages test: 3 masks, as published",
    ]
    before = state(root)
    assert openimages.main(arguments) == 0 and openimages.main(["--root", str(root), "--check"]) == 0
    assert state(root) == before
    (root / "OpenImages" / "test" / "0bt" / "3_ignore.png").unlink()
    assert openimages.main(["--root", str(root), "--check"]) == 2
    assert "found 2 (test/0bt/3_ignore.png is not there): get OpenImages_images.zip" in capsys.readouterr().err


def test_openimages_without_files_says_where_they_are(openimages, tmp_path, capsys):
    assert openimages.main(["--root", str(tmp_path / "data")]) == 2
    assert "OpenImages_annotations.zip from https://drive.google.com/open?id=1eu1Y" in capsys.readouterr().err


def test_openimages_from_files_that_lack_something_leaves_nothing(openimages, tmp_path, capsys):
    root = tmp_path / "data"
    twice = [str(openimages.archives[0])] * 2
    assert openimages.main(["--root", str(root), "--archives", *twice]) == 2
    assert "expected 3 masks of OpenImages train-fullsup" in capsys.readouterr().err
    assert [path.name for path in root.iterdir()] == ["wsolevaluation"]
    assert openimages.main(["--root", str(root), "--archives", *map(str, openimages.archives)]) == 0


@pytest.fixture
def imagenet(tmp_path, lists, served, monkeypatch):
    """imagenet.py, with its official archives beside; of ImageNetV2 the first release and today's, which is served."""
    module = load("imagenet", monkeypatch)
    source = tmp_path / "source"
    for image_id in LISTS["ILSVRC"]["train"] + LISTS["ILSVRC"]["test"]:
        write(source / "imagenet" / image_id)
    for image_id in LISTS["ILSVRC"]["val"]:
        content, (_, label, file) = standins.jpeg(size=size(image_id)), image_id.split("/")
        write(source / "first" / label / file, content)
        write(source / "second" / label / f"{hashlib.sha1(image_id.encode()).hexdigest()}.jpeg", content)
    module.order = [
        [hashlib.sha1(image_id.encode()).hexdigest(), f"n0{image_id.split('/')[1]}"]
        for image_id in LISTS["ILSVRC"]["val"]
    ]
    write(source / "order.json", json.dumps({"image_filenames": module.order}).encode())
    (source / "tars").mkdir()
    for wnid in ("n01", "n02"):
        tarred(source / "imagenet" / "train" / wnid, source / "tars" / f"{wnid}.tar")
    module.train = tarred(source / "tars", source / "train.tar")
    module.val = tarred(source / "imagenet" / "val", source / "val.tar")
    module.first = tarred(source / "first", source / "first.tar.gz", top="imagenetv2-threshold0.7")
    served[module.VAL2_URL] = tarred(source / "second", source / "second.tar", top="imagenetv2-format-val")
    served[module.VAL2_LIST_URL] = source / "order.json"
    monkeypatch.setattr(module, "CLASSES", 2)
    monkeypatch.setattr(module, "COUNTS", counts("ILSVRC"))
    monkeypatch.setattr(module, "TRAIN_CHECKSUM", checksum(module.train))
    monkeypatch.setattr(module, "VAL_CHECKSUM", checksum(module.val))
    monkeypatch.setattr(module, "VAL2_CHECKSUM", checksum(served[module.VAL2_URL], "sha256"))
    monkeypatch.setattr(module, "VAL2_LIST_CHECKSUM", checksum(source / "order.json", "sha256"))
    monkeypatch.setattr(module, "VAL2_FIRST_CHECKSUM", checksum(module.first, "sha256"))
    module.official = ["--root", str(tmp_path / "data"), "--train", str(module.train), "--val", str(module.val)]
    return module


def test_imagenet_comes_from_the_official_files(imagenet, tmp_path, capsys):
    root = tmp_path / "data"
    assert imagenet.main(imagenet.official) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ILSVRC train-weaksup: 3 images, as published",
        "ILSVRC train-fullsup: 3 images, as published",
        "ILSVRC test: 1 images, as published",
    ]
    every = {path.relative_to(root / "ILSVRC").as_posix() for path in (root / "ILSVRC").rglob("*.*")}
    assert every == {image_id for image_ids in LISTS["ILSVRC"].values() for image_id in image_ids}
    before = state(root)
    imagenet.train.unlink()
    imagenet.val.unlink()
    assert imagenet.main(imagenet.official) == 0 and state(root) == before


@pytest.mark.parametrize("release", ["first", "second"])
def test_imagenetv2_gets_its_first_names_back(imagenet, tmp_path, served, release):
    mine = imagenet.first if release == "first" else served.pop(imagenet.VAL2_URL)
    imagenet.main(["--root", str(tmp_path / "data"), "--val2", str(mine)])
    assert imagenet.VAL2_URL not in served.asked
    for image_id in LISTS["ILSVRC"]["val"]:
        first = tmp_path / "source" / "first" / image_id.removeprefix("val2/")
        assert (tmp_path / "data" / "ILSVRC" / image_id).read_bytes() == first.read_bytes()


def test_an_imagenetv2_with_another_checksum_is_refused(imagenet, tmp_path, capsys):
    imagenet.first.write_bytes(imagenet.first.read_bytes() + b"x")
    assert imagenet.main(["--root", str(tmp_path / "data"), "--val2", str(imagenet.first)]) == 2
    assert f"of {imagenet.first}, found sha256:" in capsys.readouterr().err
    assert not list((tmp_path / "data").rglob("val2*"))


def test_first_names_count_each_class_in_the_published_order(imagenet):
    order = [*((f"image{k}", f"n{k}") for k in (6, 2, 7, 0, 5, 1, 4, 3)), ("another", "n7"), ("a", "n7")]
    expected = {f"{k}/image{k}.jpeg": f"{k}/0.jpeg" for k in range(8)}
    assert imagenet.first_names(order) == expected | {"7/another.jpeg": "7/1.jpeg", "7/a.jpeg": "7/2.jpeg"}


def test_an_imagenetv2_whose_sizes_are_not_the_listed_ones_is_refused(imagenet, tmp_path, served, capsys, monkeypatch):
    """The names may lie, the sizes do not."""
    order = [imagenet.order[1], imagenet.order[0], imagenet.order[2]]
    served[imagenet.VAL2_LIST_URL].write_text(json.dumps({"image_filenames": order}))
    monkeypatch.setattr(imagenet, "VAL2_LIST_CHECKSUM", checksum(served[imagenet.VAL2_LIST_URL], "sha256"))
    assert imagenet.main(["--root", str(tmp_path / "data")]) == 2
    expected = "expected 0/0.jpeg of {} x {} pixels".format(*size("val2/0/0.jpeg"))
    assert expected in capsys.readouterr().err and list((tmp_path / "data" / "ILSVRC").iterdir()) == []


def test_imagenet_without_files_says_where_they_are(imagenet, tmp_path, capsys):
    assert imagenet.main(["--root", str(tmp_path / "data")]) == 2
    assert "ILSVRC2012_img_train.tar with your account at https://image-net.org" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["train", "val"])
def test_an_official_file_that_is_damaged_is_refused_and_the_rest_stays(imagenet, tmp_path, capsys, which):
    path = getattr(imagenet, which)
    path.write_bytes(path.read_bytes()[:-512])
    other = "val" if which == "train" else "train"
    assert imagenet.main(["--root", str(tmp_path / "data"), f"--{other}", str(getattr(imagenet, other))]) == 2
    before = state(tmp_path / "data" / "ILSVRC")
    capsys.readouterr()
    assert imagenet.main(imagenet.official) == 2
    assert f"of {path}, found md5:" in capsys.readouterr().err
    assert state(tmp_path / "data" / "ILSVRC") == before


def test_interrupted_training_images_keep_whole_classes(imagenet, tmp_path, monkeypatch):
    train = tmp_path / "data" / "ILSVRC" / "train"
    whole, calls = shutil.copyfileobj, []

    def copy(*args):
        calls.append(1)
        if len(calls) == 3 and train.exists():
            raise KeyboardInterrupt
        return whole(*args)

    arguments = ["--root", str(tmp_path / "data"), "--train", str(imagenet.train)]
    imagenet.main(["--root", str(tmp_path / "data")])  # lists
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "copyfileobj", copy)
        imagenet.main(arguments)
    assert [path.name for path in train.iterdir()] == ["n01"]
    before = state(train / "n01")
    imagenet.main(arguments)
    assert sorted(path.name for path in train.iterdir()) == ["n01", "n02"] and state(train / "n01") == before
