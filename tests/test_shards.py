"""Shards of a folder of photographs: joined they are the file of one call, and what does not belong together is said so."""

import json

import pytest
import standins
import tiny

from wsol_lib.__main__ import main
from wsol_lib.commands import reading

FLAT = ("--flat", "--backbone", "tiny", "--sheet", "0")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(reading, "BATCH", 3)
    with tiny.registered():
        yield


@pytest.fixture
def folder(tmp_path):
    standins.photographs(tmp_path / "photographs", [f"{n % 2}/{n:02}.png" for n in range(10)])
    (tmp_path / "photographs" / "1" / "05.png").write_bytes(b"damaged")
    return tmp_path


def predict(folder, out, *more):
    return main(["predict", "--images", str(folder / "photographs"), "--out", str(folder / out), *FLAT, *more])


def join(folder, *shards, out="joined.json", more=()):
    return main(["join", *(str(folder / name) for name in shards), "--out", str(folder / out), *more])


@pytest.mark.parametrize("number", [1, 3])
def test_joined_shards_are_the_file_of_one_call(folder, number, capsys):
    assert predict(folder, "whole.json") == 0
    for k in range(1, number + 1):
        assert predict(folder, f"shard-{k}.json", "--shard", f"{k}/{number}") == 0
    assert join(folder, *(f"shard-{k}.json" for k in range(number, 0, -1))) == 0
    assert f"10 photographs of {number} shards in" in capsys.readouterr().out
    assert (folder / "joined.json").read_bytes() == (folder / "whole.json").read_bytes()
    assert len(json.loads((folder / "joined.json").read_text())["info"]["damaged"]) == 1


def test_a_finished_shard_is_left_alone_and_another_is_not_taken_for_it(folder, capsys):
    assert predict(folder, "shard.json", "--shard", "1/2") == 0
    assert predict(folder, "shard.json", "--shard", "1/2") == 0
    assert "is finished: 6 photographs" in capsys.readouterr().out
    assert predict(folder, "shard.json", "--shard", "2/2") == 2
    assert "found it made with other settings" in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1/5", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_cannot_be(folder, shard, capsys):
    assert predict(folder, "shard.json", f"--shard={shard}") == 2
    told = capsys.readouterr().err
    assert (
        f"expected --shard K/N with K from 1 to N and N up to 4, the batches of 10 photographs, found {shard}" in told
    )


def test_a_method_that_every_shard_would_train_anew(folder, capsys):
    assert predict(folder, "shard.json", "--method", "ddt", "--shard", "1/2") == 2
    assert "expected --model, or a method that needs no training, with --shard, found ddt" in capsys.readouterr().err


def test_what_cannot_be_joined(folder, capsys):
    for k in (1, 2):
        assert predict(folder, f"{k}.json", "--shard", f"{k}/2") == 0
    assert predict(folder, "other.json", "--shard", "2/2", "--set", "tau=0.5") == 0
    assert predict(folder, "whole.json") == 0
    (folder / "out.json").touch()
    for shards, rule in (
        (["1.json"], "expected 2 shards, found 1, without shard 2: predict it with --shard 2/2"),
        (["1.json", "1.json"], "expected every shard once, found"),
        (["1.json", "other.json"], "other.json with different settings: predict one of them again"),
        (["1.json", "whole.json"], "expected a file of `predict --shard` in"),
        (["1.json", "none.json"], "expected a shard of predict at"),
    ):
        capsys.readouterr()
        assert join(folder, *shards) == 2
        assert rule in capsys.readouterr().err
        assert not (folder / "joined.json").exists()
    assert join(folder, "1.json", "2.json", out="out.json") == 2
    assert "out.json, found one: name another --out" in capsys.readouterr().err
    assert join(folder, "1.json", "2.json", out="out.json", more=["--force"]) == 0
