"""A pickle runs nothing here, whatever it says; and each way in which it can be wrong is told."""

import collections
import io
import os
import pickle
import struct
import sys
import zipfile

import pytest
import torch
from torch import nn

from mood.core.errors import ModelError
from mood.models import open_tokenizer
from mood.models.tokenizer import pickled
from mood.models.tokenizer.pickled import is_torch_file, read_tensors


def archive(path, program, *, data=(), compression=zipfile.ZIP_STORED, root="x/"):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{root}data.pkl", program)
        for key, value in data:
            file.writestr(f"{root}data/{key}", value)
    return path


def same(tensors, wanted):
    assert set(tensors) == set(wanted)
    return all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in wanted.items()
    )


MODULE = nn.Sequential(
    collections.OrderedDict(
        first=nn.Conv2d(3, 4, 3, bias=False), norm=nn.BatchNorm2d(4), inner=nn.Sequential(nn.ReLU())
    )
)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_reads_what_torch_saved(tmp_path, zipped, kind):
    module = MODULE.to(kind)
    for number, saved in enumerate((module, module.state_dict())):
        torch.save(saved, tmp_path / f"{number}.pth", _use_new_zipfile_serialization=zipped)
        assert is_torch_file(tmp_path / f"{number}.pth")
        assert same(read_tensors(tmp_path / f"{number}.pth"), module.state_dict())


def test_reads_views_and_what_shares_its_numbers(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    saved = {"whole": whole, "turned": whole.T, "part": whole[1:3, ::2], "again": whole}
    torch.save(saved, tmp_path / "a.pth")
    assert same(read_tensors(tmp_path / "a.pth"), saved)


class Attack:
    """What pickles do to those who load them."""

    def __init__(self, reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def attacks(mark):
    """Pickled objects that would write a file, by each of the ways in which a pickle can call."""
    code = f"open({str(mark)!r}, 'w').close()"
    yield "os.system", Attack((os.system, (f"touch {mark}",)))
    yield "exec", Attack((exec, (code,)))
    yield "eval inside of a state", {"blocks.input.w": torch.ones(2), "more": Attack((eval, (code,)))}
    yield "a class of another library", collections.UserDict(a=1)
    yield "getattr", Attack((getattr, (Attack((__import__, ("os",))), "system")))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("number", range(5))
def test_a_malicious_pickle_runs_nothing(tmp_path, number, zipped):
    mark = tmp_path / "mark"
    _, attack = list(attacks(mark))[number]
    path = tmp_path / "encoder.pkl"
    torch.save(attack, path, _use_new_zipfile_serialization=zipped)
    modules = set(sys.modules)
    with pytest.raises(ModelError, match=r"refused, and nothing of it was run: it asks for \S+, which is no part"):
        open_tokenizer(path)
    assert not mark.exists()
    assert set(sys.modules) == modules
    if number < 3:
        # It is a true attack: whoever loads it is hit.
        torch.load(path, weights_only=False)
        assert mark.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_of_any_protocol_runs_nothing(tmp_path, protocol):
    mark = tmp_path / "mark"
    path = tmp_path / "encoder.pkl"
    path.write_bytes(pickle.dumps(Attack((os.system, (f"touch {mark}",))), protocol))
    with pytest.raises(ModelError, match="refused, and nothing of it was run|cannot be read safely"):
        open_tokenizer(path)
    assert not mark.exists()


def test_a_module_may_not_be_called_with_anything(tmp_path):
    program = b"\x80\x02cdall_e.encoder\nEncoder\nq\x00X\x05\x00\x00\x00helloq\x01\x85q\x02\x81."
    with pytest.raises(ModelError, match="makes a dall_e.encoder.Encoder, which is no module"):
        read_tensors(archive(tmp_path / "a.pkl", program))
    program = b"\x80\x02cdall_e.encoder\nEncoder\n)R."
    with pytest.raises(ModelError, match="calls dall_e.encoder.Encoder"):
        read_tensors(archive(tmp_path / "a.pkl", program))
    program = b"\x80\x02ccollections\nOrderedDict\n]q\x00\x85R."
    with pytest.raises(ModelError, match="calls collections.OrderedDict"):
        read_tensors(archive(tmp_path / "a.pkl", program))


def tensor(*, count=4, offset=0, size=(2, 2), stride=(2, 1), storage="FloatStorage", key="0", data=16):
    """An archive with one tensor in it that need not be true."""
    stream = io.BytesIO()

    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", getattr(torch, storage), key, "cpu", count) if value == "here" else None

    rebuild = Attack((torch._utils._rebuild_tensor_v2, ("here", offset, size, stride, False, {})))
    Writer(stream, 2).dump({"w": rebuild})
    return stream.getvalue(), [(key, b"\0" * data)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"offset": 1}, "is no part of 4 numbers"),
        ({"offset": -1}, "a tensor of offset -1"),
        ({"stride": (2, -1)}, "a tensor of offset 0"),
        ({"stride": (1,)}, "a tensor of offset 0"),
        ({"size": (1 << 40,), "stride": (0,)}, "is no part of 4 numbers"),
        ({"size": (0,), "stride": (1,)}, "is no part of 4 numbers"),
        ({"size": (2.0, 2)}, "a tensor of offset 0"),
        ({"count": 1 << 40}, "has 16 bytes"),
        ({"data": 15}, "has 15 bytes"),
        ({"count": -4}, "storage '0' of -4 numbers"),
        ({"key": "../0"}, "storage '../0' of 4 numbers"),
        ({"storage": "BoolStorage"}, "asks for torch.BoolStorage"),
    ],
    ids=str,
)
def test_numbers_that_are_not_there_are_not_read(tmp_path, wrong, message):
    program, data = tensor()
    assert read_tensors(archive(tmp_path / "right.pth", program, data=data))["w"].shape == (2, 2)
    program, data = tensor(**wrong)
    with pytest.raises(ModelError, match=message):
        read_tensors(archive(tmp_path / "wrong.pth", program, data=data))


def test_few_bytes_do_not_become_many(tmp_path, monkeypatch):
    program, data = tensor()
    with pytest.raises(ModelError, match="compressed"):
        read_tensors(archive(tmp_path / "a", program, data=data, compression=zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(pickled, "MAX_PROGRAM", 10)
    with pytest.raises(ModelError, match="its pickle has more than"):
        read_tensors(archive(tmp_path / "b", program, data=data))
    monkeypatch.setattr(pickled, "MAX_BYTES", 10)
    with pytest.raises(ModelError, match="has more than 0 MiB"):
        read_tensors(archive(tmp_path / "c", program, data=data))


def test_entries_that_overlap_are_refused(tmp_path):
    program, _ = tensor()
    path = archive(tmp_path / "a", program, data=[("0", b"\0" * 4096)])
    raw = bytearray(path.read_bytes())
    # The directory names the same bytes once more, for each of many tensors.
    start = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 4)
    end = raw.index(b"PK\x05\x06")
    entry, tail = raw[start:end], raw[end:]
    struct.pack_into("<HH", tail, 8, 5, 5)
    struct.pack_into("<I", tail, 12, len(raw) - len(tail) - raw.index(b"PK\x01\x02") + 3 * len(entry))
    path.write_bytes(raw[:end] + entry * 3 + tail)
    with pytest.raises(ModelError, match="claims more bytes than the file has"):
        read_tensors(path)


def test_modules_that_hold_each_other_end(tmp_path):
    # x._modules["a"] is x itself.
    made = b"\x80\x02cdall_e.encoder\nEncoder\n)\x81q\x01"
    state = b"}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x01ss"
    program = made + state + b"b."
    with pytest.raises(ModelError, match="more than 10000 modules"):
        read_tensors(archive(tmp_path / "a", program))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02}.", "neither a state nor a module with parameters"),
        (b"\x80\x02K\x01.", "has a int where a dict belongs"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x02}K\x01", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x02]]K\x01s.", "damaged"),
        (b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00}.", "has a FRAME, which torch does not write"),
        (b"\x80\x02\x82\x01.", "has a EXT1, which torch does not write"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "has a str where a tuple belongs"),
        (b"\x80\x02X\x01\x00\x00\x00a\x85Q.", "unknown kind 'a'"),
    ],
)
def test_each_other_wrong_pickle_is_told(tmp_path, program, message):
    with pytest.raises(ModelError, match=message):
        read_tensors(archive(tmp_path / "a", program))


def test_a_damaged_file_is_told(tmp_path, published):
    whole = published(False).read_bytes()
    for length in (5, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ModelError, match="damaged"):
            read_tensors(tmp_path / "cut")
    whole = published(True).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        read_tensors(tmp_path / "cut")
    (tmp_path / "empty").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    assert not is_torch_file(tmp_path / "empty")
