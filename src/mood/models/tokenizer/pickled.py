"""The tensors of a torch file that holds a state or a whole pickled module, read without running anything of it.

A pickle is a program: its opcodes name functions and call them. Here the opcodes are read by `pickletools`, which runs
none, and those that torch writes are followed by the table below, in which there is nothing to call: what the program
names is compared with a list, modules become plain records, and tensors are cut from their bytes by this file.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mood.core.errors import ModelError

MAX_BYTES = 1 << 30
"""Of a file; the published encoder has 54 MB."""

MAX_PROGRAM = 16 << 20
"""Of the pickle in it, without the numbers of its tensors; the published encoder's has some 30 KB."""

MAX_MODULES = 10_000
"""In a pickled module. A few bytes can name one module many times."""

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_TYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
}

# What a program may name beside modules, and what it may call with what it named.
_CALLED = (
    "collections.OrderedDict",
    "__builtin__.set",
    "builtins.set",
    "torch.device",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
)
_STORAGES = tuple(f"torch.{name}" for name in _TYPES)
_MODULES = ("torch.nn.modules.", "dall_e.")


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as torch's do, of the present format or of that before torch 1.6."""
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    return start == _ZIP or start.startswith(_PICKLE)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state, or of a pickled module under the names of its state.

    Args:
        path: a file as `torch.save` writes it.

    Raises:
        ModelError: it is damaged, too large, holds something else, or names what is no part of a module.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"checkpoint {path} has more than {MAX_BYTES >> 20} MiB: it is no encoder of DALL-E")
    try:
        with path.open("rb") as file:
            return _from_zip(file) if file.read(len(_ZIP)) == _ZIP else _from_legacy(file)
    except _Refused as error:
        raise ModelError(f"checkpoint {path} is refused, and nothing of it was run: {error}") from None
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, OSError, struct.error) as error:
        raise ModelError(f"checkpoint {path} is damaged ({type(error).__name__}: {error})") from error
    except zipfile.BadZipFile as error:
        raise ModelError(f"checkpoint {path} is damaged: {error}") from error


class _Refused(Exception):  # noqa: N818  it says why, not what
    """The file is readable and asks for what it should not."""


class _Name(NamedTuple):
    """A class or function that the program names."""

    path: str


class _Storage(NamedTuple):
    """Numbers of one type that lie somewhere in the file."""

    type: torch.dtype
    key: str
    numbers: int


class _View(NamedTuple):
    """A tensor: a part of a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Module:
    """What was an object of a module's class."""

    state: Mapping[str, Any] = field(default_factory=dict)


def _from_zip(file: BinaryIO) -> dict[str, Tensor]:
    """The format since torch 1.6: an archive of `NAME/data.pkl` and `NAME/data/KEY`, none of it compressed."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise _Refused("its archive is compressed, which torch's never are")
        # Entries may overlap, so that few bytes of a file count many times.
        if sum(entry.file_size for entry in entries) > file.seek(0, io.SEEK_END):
            raise _Refused("its archive claims more bytes than the file has")
        (program,) = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if program.file_size > MAX_PROGRAM:
            raise _Refused(f"its pickle has more than {MAX_PROGRAM >> 20} MiB")
        root = program.filename.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise _Refused("its numbers are big-endian")
        views = _views(_followed(io.BytesIO(archive.read(program)), {}))
        keys = {view.storage.key for view in views.values()}
        return _cut(views, {key: archive.read(f"{root}data/{key}") for key in keys})


def _from_legacy(file: BinaryIO) -> dict[str, Tensor]:
    """The format before: five pickles, then the storages, each behind its length."""
    file.seek(0)
    stream = io.BytesIO(file.read())
    storages: dict[str, _Storage] = {}
    if _followed(stream, storages) != _LEGACY_MAGIC:
        raise _Refused("it is a pickle, and none that torch has written")
    _followed(stream, storages)
    if not _only(dict, _followed(stream, storages))["little_endian"]:
        raise _Refused("its numbers are big-endian")
    views = _views(_followed(stream, storages))
    parts: dict[str, bytes] = {}
    for key in _only(list, _followed(stream, storages)):
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storages[key].numbers:
            raise ValueError(f"storage {key} has {count} numbers, {storages[key].numbers} were expected")
        parts[key] = stream.read(count * storages[key].type.itemsize)
    return _cut(views, parts)


def _followed(stream: BinaryIO, storages: dict[str, _Storage]) -> Any:
    """What one pickle builds: numbers, words, tuples, lists, dictionaries, and the records above.

    Args:
        stream: read up to the end of the pickle.
        storages: takes those that it names, by their keys.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def marked() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "GLOBAL":
                stack.append(_named(".".join(argument.split(" "))))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[opcode.name]())
            case "TUPLE":
                stack.append(tuple(marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND" | "APPENDS":
                items = marked() if opcode.name == "APPENDS" else [stack.pop()]
                _only(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = marked() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                _only(dict, stack[-1]).update(zip(items[::2], items[1::2], strict=True))
            case "BINPERSID":
                found = _persistent(stack.pop())
                if isinstance(found, _Storage):
                    storages[found.key] = found
                stack.append(found)
            case "NEWOBJ":
                arguments, cls = stack.pop(), _only(_Name, stack.pop())
                if arguments != () or not cls.path.startswith(_MODULES):
                    raise _Refused(f"it makes a {cls.path}, which is no module")
                stack.append(_Module())
            case "REDUCE":
                arguments, function = _only(tuple, stack.pop()), _only(_Name, stack.pop())
                stack.append(_called(function.path, arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], _Module):
                    stack[-1].state = _only(dict, state)
                else:
                    # The attributes of a dictionary: the versions of the modules in a state.
                    _only(dict, stack[-1])
            case other:
                raise _Refused(f"its pickle has a {other}, which torch does not write")
    raise ValueError("its pickle does not end")


def _only(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"its pickle has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _named(path: str) -> _Name:
    """A name that a program of torch's may have.

    Raises:
        _Refused: any other.
    """
    if path in _CALLED or path in _STORAGES or path.startswith(_MODULES):
        return _Name(path)
    raise _Refused(f"it asks for {path}, which is no part of a module of DALL-E")


def _called(path: str, arguments: tuple[Any, ...]) -> Any:
    """What a call to one of the few functions that torch's programs need would have given."""
    match path:
        case "torch._utils._rebuild_tensor_v2":
            storage, offset, size, stride, *_ = arguments
            numbers = (offset, *size, *stride)
            if not all(isinstance(number, int) and number >= 0 for number in numbers) or len(size) != len(stride):
                raise ValueError(f"a tensor of offset {offset}, size {size} and stride {stride}")
            return _View(_only(_Storage, storage), offset, tuple(size), tuple(stride))
        case "torch._utils._rebuild_parameter":
            return _only(_View, arguments[0])
        case "collections.OrderedDict" if not arguments:
            return {}
        case "torch.device" | "builtins.set" | "__builtin__.set":
            # Where a tensor lay, and which buffers are in no state: nobody asks for either.
            return None
        case _:
            raise _Refused(f"it calls {path}, which makes no module")


def _persistent(identity: Any) -> "_Storage | _Name":
    """What torch keeps outside of the pickle: storages, and in the older format the classes of modules."""
    kind, *rest = _only(tuple, identity)
    if kind == "module":
        cls: _Name = _only(_Name, rest[0])
        return cls
    if kind != "storage":
        raise ValueError(f"an unknown kind {kind!r} of persistent object")
    name, key, _, count, *part = rest
    name = _only(_Name, name).path
    if any(part):
        raise ValueError(f"storage {key!r} is a part of another one")
    if name not in _STORAGES:
        raise _Refused(f"it has a storage of {name}")
    if not isinstance(count, int) or count < 0 or not _only(str, key).isalnum():
        raise ValueError(f"storage {key!r} of {count!r} numbers")
    return _Storage(_TYPES[name.removeprefix("torch.")], key, count)


def _views(root: Any) -> dict[str, _View]:
    """The tensors of a state, or those of a module and of all modules in it."""
    if isinstance(root, _Module):
        found = dict(_below(root))
    else:
        found = {name: value for name, value in _only(dict, root).items() if isinstance(value, _View)}
    if not found or not all(isinstance(name, str) for name in found):
        raise _Refused("it holds neither a state nor a module with parameters")
    return found


def _below(root: _Module) -> Iterator[tuple[str, _View]]:
    waiting = [("", root)]
    met = 0
    while waiting:
        prefix, module = waiting.pop()
        met += 1
        if met > MAX_MODULES:
            raise _Refused(f"it has more than {MAX_MODULES} modules inside of each other")
        for name, value in _own(module, "_modules"):
            if value is not None:
                waiting.append((f"{prefix}{name}.", _only(_Module, value)))
        for kind in ("_parameters", "_buffers"):
            for name, value in _own(module, kind):
                if value is not None:
                    yield f"{prefix}{name}", _only(_View, value)


def _own(module: _Module, kind: str) -> Iterator[tuple[str, Any]]:
    for name, value in _only(dict, module.state.get(kind, {})).items():
        yield _only(str, name), value


def _cut(views: Mapping[str, _View], parts: Mapping[str, bytes]) -> dict[str, Tensor]:
    """The tensors, from the bytes of their storages."""
    tensors = {}
    for name, (storage, offset, size, stride) in views.items():
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        here = parts[storage.key]
        # More numbers than there are: a few bytes, repeated by a stride of 0, would fill the memory.
        if math.prod(size) == 0 or last >= storage.numbers or math.prod(size) > storage.numbers:
            raise ValueError(f"{name} of {size} and stride {stride} is no part of {storage.numbers} numbers")
        if len(here) != storage.numbers * storage.type.itemsize:
            raise ValueError(f"{name} has {len(here)} bytes, {storage.numbers} {storage.type} were expected")
        flat = torch.frombuffer(bytearray(here), dtype=storage.type)
        tensors[name] = flat.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)
    return tensors
