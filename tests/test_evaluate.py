"""The command that scores a folder of score maps."""

import re

import numpy as np
import pytest
import torch

from wsol_lib import evaluate
from wsol_lib.__main__ import main
from wsol_lib.data import scaled_boxes, scaled_masks
from wsol_lib.evaluate import load_score_map
from wsol_lib.metrics import BoxAcc, MaxBoxAcc, MaxBoxAccV2, PxAP

SIZES = {"test/a.jpg": (8, 4), "test/b.jpg": (16, 8), "test/c.jpg": (8, 8)}


class Listed:
    """Three images of different sizes, known by annotations and masks alone."""

    name, split = "listed", "test"

    def __init__(self):
        self.image_ids = list(SIZES)
        self.image_sizes = torch.tensor(list(SIZES.values()))
        self.boxes = [
            torch.tensor([[0.0, 0, 4, 2]]),
            torch.tensor([[0.0, 0, 16, 8], [1, 1, 3, 3]]),
            torch.tensor([[0.0, 4, 8, 8]]),
        ]

    def masks(self, i, size):
        """The upper left quarter; its right neighbour is ignored."""
        height, width = size
        mask, ignore = torch.zeros(2, height, width, dtype=torch.bool)
        mask[: height // 2, : width // 2] = True
        ignore[: height // 2, width // 2 :] = True
        return mask, ignore


@pytest.fixture
def listed(monkeypatch):
    dataset = Listed()
    monkeypatch.setattr(evaluate, "load_dataset", lambda name, split, root: dataset)
    return dataset


@pytest.fixture
def maps(tmp_path):
    """One 6 x 6 map an image, float32, and their folder; the last is 4 x 4."""
    rng = np.random.default_rng(0)
    arrays = [rng.random((side, side), dtype=np.float32) for side in (6, 6, 4)]
    for image_id, array in zip(SIZES, arrays):
        path = tmp_path / f"{image_id}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
    return tmp_path, arrays


def command(folder, *options):
    return main(["evaluate", "--scoremaps", str(folder), "--dataset", "listed", *options])


def test_the_table_shows_what_the_metrics_give(listed, maps, capsys):
    folder, arrays = maps
    metrics = [MaxBoxAcc(), MaxBoxAcc(protocol="wsolevaluation"), MaxBoxAccV2(), MaxBoxAccV2(protocol="wsolevaluation")]
    metrics += [BoxAcc()]
    pxap = PxAP()
    for i, array in enumerate(arrays):
        score_map = torch.from_numpy(array)[None].double()
        for metric in metrics:
            metric.update(score_map, [scaled_boxes(listed, i, array.shape)])
        pxap.update(score_map, *scaled_masks(listed, [i], array.shape))
    assert command(folder, "--metric", "MaxBoxAcc", "MaxBoxAccV2", "BoxAcc", "PxAP") == 0
    rows = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["metric", "protocol", "value", "best tau"]
    assert [row[:2] for row in rows[1:]] == [
        ["MaxBoxAcc", "paper"],
        ["MaxBoxAcc", "wsolevaluation"],
        ["MaxBoxAccV2", "paper"],
        ["MaxBoxAccV2", "wsolevaluation"],
        ["BoxAcc", "tau = 0.2 max"],
        ["PxAP", "paper"],
    ]
    assert [row[2] for row in rows[1:]] == [f"{100 * metric.compute():.2f} %" for metric in (*metrics, pxap)]
    assert rows[1][3] == f"{metrics[0].best_tau():.3f}"
    assert rows[3][3] == " ".join(f"{tau:.3f}" for tau in metrics[2].best_tau())


def test_metric_and_protocol_can_be_chosen(listed, maps, capsys):
    assert command(maps[0], "--metric", "MaxBoxAccV2", "--protocol", "paper") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["metric", "MaxBoxAccV2"]


def test_maps_are_read_as_float64_as_in_the_public_code(maps):
    folder, arrays = maps
    assert torch.equal(load_score_map(folder / "test/a.jpg.npy", None), torch.from_numpy(arrays[0].astype(np.float64)))


def test_maps_can_be_normalised_on_the_way(tmp_path):
    np.save(tmp_path / "map.npy", np.array([[-2.0, 0, 2]]))
    assert load_score_map(tmp_path / "map.npy", "min-max").tolist() == [[0, 0.5, 1]]


def zipped(path):
    np.savez(path, np.zeros((4, 4)))
    path.with_name(path.name + ".npz").replace(path)


def replaced(old, new):
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new, 1))


@pytest.mark.parametrize(
    "damage",
    [
        zipped,
        replaced(b"(6, 6)", b"(6, 6 "),
        replaced(b"}", b" "),
        replaced(b"'descr'", b"'descr "),
        replaced(b"'<f4'", b"'<q4'"),
        replaced(b"(6, 6)", b"(6, -6)"),
        replaced(b"(6, 6), }     ", b"(60, 600), } "),
        replaced(b"(6, 6), }           ", b"(6, 9999999999), } "),
        replaced(b"NUMPY", b"NUMPI"),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:60]),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(listed, maps, capsys, damage):
    path = maps[0] / "test/b.jpg.npy"
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    assert command(maps[0]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and re.search(r"expected a numpy array in .*test/b\.jpg\.npy, found a damaged file", said[0])


def test_missing_maps_are_counted_and_the_first_is_named(listed, maps, capsys):
    folder, _ = maps
    (folder / "test/b.jpg.npy").unlink()
    (folder / "test/c.jpg.npy").unlink()
    assert command(folder) == 2
    assert re.search(r"error: .*each of 3 images.*2 missing, first .*test/b\.jpg\.npy", capsys.readouterr().err)
    assert command(folder / "nowhere") == 2
    assert "expected a folder of score maps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (np.zeros((1, 4, 4)), r"\(height, width\) .* float64 \(1, 4, 4\)"),
        (np.array([["a"]]), r"one map of numbers"),
        (np.array([[None]]), "damaged"),
        (np.zeros((0, 4)), "one map"),
        (np.array([[0.0, np.nan]]), "NaN"),
        (np.array([[0.0, np.inf]]), "NaN or infinity"),
        (np.array([[0.0, 1.5]]), r"in \[0, 1\] .* 0 to 1\.5"),
        (np.array([[-0.5, 1.0]]), r"in \[0, 1\] .* -0\.5 to 1"),
    ],
)
def test_a_bad_map_is_named(listed, maps, capsys, content, rule):
    folder, _ = maps
    np.save(folder / "test/b.jpg.npy", content, allow_pickle=True)
    assert command(folder) == 2
    assert re.search(rf"error: .*{rule}", capsys.readouterr().err)
    with pytest.raises(ValueError, match=r"test/b\.jpg\.npy"):
        load_score_map(folder / "test/b.jpg.npy", None)


def test_a_damaged_file_is_named(listed, maps, capsys):
    folder, _ = maps
    for rest in (b"", b"\x93NUMPY", b"no array"):
        (folder / "test/b.jpg.npy").write_bytes(rest)
        assert command(folder) == 2
        assert re.search(r"error: .*test/b\.jpg\.npy.*damaged", capsys.readouterr().err)


def test_images_without_boxes_or_masks_are_named(listed, maps, capsys, monkeypatch):
    listed.boxes[1] = torch.zeros(0, 4)
    assert command(maps[0]) == 2
    assert re.search(r"error: expected boxes .* test/b\.jpg", capsys.readouterr().err)
    monkeypatch.setattr(Listed, "masks", lambda self, i, size: (None, None))
    assert command(maps[0], "--metric", "PxAP") == 2
    assert re.search(r"error: expected masks .* test/a\.jpg", capsys.readouterr().err)
