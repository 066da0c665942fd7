"""Vectors of elements to and from memory: contiguous, strided or one element for all lanes; whole or under a mask."""

from __future__ import annotations

from .emit import Emitter, Value

ELEMENT = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "uint8": "u8", "bool": "i1"}
ELEMENT |= {"float16": "f16", "bfloat16": "bf16"}
MEMORY = {"f32": "float", "f64": "double", "i32": "i32", "i64": "i64", "u8": "i8", "i1": "i8", "i8": "i8"}
MEMORY |= {"f16": "i16", "bf16": "i16"}
SIZE = {"float": 4, "double": 8, "i32": 4, "i64": 8, "i8": 1, "i16": 2}
_SHORT = {"float": "f32", "double": "f64"}


def read(e: Emitter, kind: str, pointer: str, mask: str | None, lanes: str | None = None) -> Value:
    """A vector of `kind` from `pointer` on; lanes out of the mask are 0 and not read.

    `lanes`: the lanes' distances from the pointer, in elements, where they do not lie side by side.
    """
    memory = MEMORY[kind]
    loaded = "i8" if kind == "i1" else kind
    vector, align, suffix = f"<{e.width} x {memory}>", SIZE[memory], f"v{e.width}{_SHORT.get(memory, memory)}"
    if lanes is not None:
        pointers, set_lanes = _places(e, memory, pointer, lanes), mask or "splat (i1 true)"
        name = f"llvm.masked.gather.{suffix}.v{e.width}p0"
        e.declared[name] = f"declare {vector} @{name}(<{e.width} x ptr>, i32, <{e.width} x i1>, {vector})"
        v = e.raw(
            f"call {vector} @{name}(<{e.width} x ptr> {pointers}, i32 {align}, <{e.width} x i1> {set_lanes}, {vector} zeroinitializer)",
            loaded,
        )
    elif mask is None:
        v = e.raw(f"load {vector}, ptr {pointer}, align {align}", loaded)
    else:
        name = f"llvm.masked.load.{suffix}.p0"
        e.declared[name] = f"declare {vector} @{name}(ptr, i32, <{e.width} x i1>, {vector})"
        v = e.raw(
            f"call {vector} @{name}(ptr {pointer}, i32 {align}, <{e.width} x i1> {mask}, {vector} zeroinitializer)",
            loaded,
        )
    return e.cast(v, "i1") if kind == "i1" else v


def read_one(e: Emitter, kind: str, pointer: str) -> Value:
    """The element at `pointer` in all lanes."""
    memory = MEMORY[kind]
    one = e.new()
    e.lines.append(f"  {one} = load {memory}, ptr {pointer}, align {SIZE[memory]}")
    v = spread(e, one, "i8" if kind == "i1" else kind)
    return e.cast(v, "i1") if kind == "i1" else v


def spread(e: Emitter, scalar: str, kind: str) -> Value:
    """A scalar of lane type `kind` in all lanes."""
    v = Value(scalar, kind)
    vector, first = e.vector(kind), e.new()
    e.lines.append(f"  {first} = insertelement {vector} poison, {vector.split(' x ')[1][:-1]} {scalar}, i32 0")
    return e.raw(f"shufflevector {vector} {first}, {vector} poison, <{e.width} x i32> zeroinitializer", v.type)


def write(e: Emitter, v: Value, kind: str, pointer: str, mask: str | None, lanes: str | None = None) -> None:
    """Store a vector as elements of `kind`, to which it is cast; the other arguments as for `read`."""
    memory = MEMORY[kind]
    v = e.cast(v, kind)
    if kind == "i1":
        v = e.cast(v, "i8")
    vector, align, suffix = f"<{e.width} x {memory}>", SIZE[memory], f"v{e.width}{_SHORT.get(memory, memory)}"
    if lanes is not None:
        pointers = _places(e, memory, pointer, lanes)
        name = f"llvm.masked.scatter.{suffix}.v{e.width}p0"
        e.declared[name] = f"declare void @{name}({vector}, <{e.width} x ptr>, i32, <{e.width} x i1>)"
        e.lines.append(
            f"  call void @{name}({vector} {v.name}, <{e.width} x ptr> {pointers}, i32 {align}, <{e.width} x i1> "
            f"{mask or 'splat (i1 true)'})"
        )
    elif mask is None:
        e.lines.append(f"  store {vector} {v.name}, ptr {pointer}, align {align}")
    else:
        name = f"llvm.masked.store.{suffix}.p0"
        e.declared[name] = f"declare void @{name}({vector}, ptr, i32, <{e.width} x i1>)"
        e.lines.append(f"  call void @{name}({vector} {v.name}, ptr {pointer}, i32 {align}, <{e.width} x i1> {mask})")


def _places(e: Emitter, memory: str, pointer: str, lanes: str) -> str:
    """The addresses of all lanes."""
    places = e.new()
    e.lines.append(f"  {places} = getelementptr {memory}, ptr {pointer}, <{e.width} x i64> {lanes}")
    return places
