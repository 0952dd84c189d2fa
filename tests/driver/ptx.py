"""PTX as C, as far as Numba writes it for the kernels here.

A thread of a block runs until a barrier, or a shuffle, and then the next one does. Source:
https://docs.nvidia.com/cuda/parallel-thread-execution/ (the instruction set).
"""

import ctypes as c
import hashlib
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

HEAD = r"""
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
typedef float f32; typedef double f64;
typedef uint64_t u64; typedef uint32_t u32; typedef int64_t s64; typedef int32_t s32;
typedef uint16_t u16; typedef int16_t s16; typedef uint8_t u8; typedef int8_t s8;
static inline u64 bfi64(u64 a, u64 b, u32 pos, u32 len) {
  u64 m = len >= 64 ? ~0ull : ((1ull << len) - 1);
  m = pos >= 64 ? 0 : m << pos;
  return (b & ~m) | ((pos >= 64 ? 0 : a << pos) & m);
}
static inline u32 prmt(u32 a, u32 b, u32 s) {
  u64 x = ((u64)b << 32) | a; u32 r = 0;
  for (int i = 0; i < 4; i++) {
    u32 n = (s >> (4 * i)) & 15; u8 v = (x >> (8 * (n & 7))) & 255;
    if (n & 8) v = (v & 128) ? 255 : 0;
    r |= (u32)v << (8 * i);
  }
  return r;
}
static inline u64 shl64(u64 a, u32 n) { return n > 63 ? 0 : a << n; }
static inline u64 shru64(u64 a, u32 n) { return n > 63 ? 0 : a >> n; }
static inline u64 shrs64(u64 a, u32 n) { return (u64)((s64)a >> (n > 63 ? 63 : n)); }
static inline u32 shl32(u32 a, u32 n) { return n > 31 ? 0 : a << n; }
static inline u32 shru32(u32 a, u32 n) { return n > 31 ? 0 : a >> n; }
static inline u32 shrs32(u32 a, u32 n) { return (u32)((s32)a >> (n > 31 ? 31 : n)); }

/* Memory that may be touched, aligned. */
static u64 *low_, *high_, last_low_, last_high_, bad_, dummy_[4];
static int count_;
static inline u64 check(int size, u64 a) {
  if (a % size) { bad_ = a; return (u64)dummy_; }
  if (a >= last_low_ && a + size <= last_high_) return a;
  for (int i = 0; i < count_; i++)
    if (a >= low_[i] && a + size <= high_[i]) {
      last_low_ = low_[i]; last_high_ = high_[i];
      return a;
    }
  bad_ = a;
  return (u64)dummy_;
}

/* Threads of a block: coroutines that run until they wait for others. */
static ucontext_t start_; static jmp_buf scheduler_, thread_[1024];
static char *stack_[1024]; static u8 ended_[1024];
static u32 block_, arrived_[33], passed_[33]; static u32 slot_[2][1024]; static u8 side_[1024];
static void yield_(u32 t) { if (!_setjmp(thread_[t])) _longjmp(scheduler_, 1); }
static void barrier_(u32 t, u32 which, u32 threads) {
  u32 round = passed_[which];
  if (++arrived_[which] == threads) { arrived_[which] = 0; passed_[which]++; return; }
  while (passed_[which] == round) yield_(t);
}
static u32 in_warp_(u32 t) { u32 left = block_ - (t & ~31u); return left < 32 ? left : 32; }
static void warp_barrier_(u32 t) { barrier_(t, t >> 5, in_warp_(t)); }
static void block_barrier_(u32 t) { barrier_(t, 32, block_); }
static u32 shuffle_xor_(u32 t, u32 value, u32 distance) {
  u8 side = side_[t] ^= 1;
  slot_[side][t] = value;
  warp_barrier_(t);
  return slot_[side][t ^ distance];
}
"""

PLAIN = r"""
u64 run(void **params, u32 grid, u32 block, u64 *low, u64 *high, int count) {
  low_ = low; high_ = high; count_ = count; bad_ = last_low_ = last_high_ = 0;
  for (u32 b = 0; b < grid; b++) for (u32 t = 0; t < block; t++) kernel_(params, t, b, block, grid);
  return bad_;
}
"""

WAITING = r"""
static void **params_; static u32 b_, grid_;
static void entry_(int t) {
  if (!_setjmp(thread_[t])) swapcontext(&(ucontext_t){0}, &start_);
  kernel_(params_, t, b_, block_, grid_);
  ended_[t] = 1;
  _longjmp(scheduler_, 1);
}
u64 run(void **params, u32 grid, u32 block, u64 *low, u64 *high, int count) {
  low_ = low; high_ = high; count_ = count; bad_ = last_low_ = last_high_ = 0;
  params_ = params; grid_ = grid; block_ = block;
  memset(arrived_, 0, sizeof arrived_); memset(passed_, 0, sizeof passed_);
  for (b_ = 0; b_ < grid; b_++) {
    volatile u32 left = block;
    for (u32 t = 0; t < block; t++) {
      ucontext_t one;
      if (!stack_[t]) stack_[t] = malloc(1 << 16);
      getcontext(&one);
      one.uc_stack.ss_sp = stack_[t]; one.uc_stack.ss_size = 1 << 16; one.uc_link = 0;
      ended_[t] = 0;
      makecontext(&one, (void (*)())entry_, 1, (int)t);
      swapcontext(&start_, &one);
    }
    while (left) for (volatile u32 t = 0; t < block; t++) if (!ended_[t]) {
      if (!_setjmp(scheduler_)) _longjmp(thread_[t], 1);
      if (ended_[t]) left--;
    }
  }
  return bad_;
}
"""

TYPES = {"u64": "u64", "b64": "u64", "s64": "s64", "u32": "u32", "b32": "u32", "s32": "s32",
         "u16": "u16", "b16": "u16", "s16": "s16", "u8": "u8", "b8": "u8", "s8": "s8",
         "f32": "f32", "f64": "f64"}  # fmt: skip
SIZES = {name: int(name[1:]) // 8 for name in TYPES}
SPECIAL = {"%tid.x": "tid", "%ctaid.x": "ctaid", "%ntid.x": "ntid", "%nctaid.x": "nctaid"}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">=",
           "neu": "!=", "equ": "==", "ltu": "<", "gtu": ">"}  # fmt: skip
LOGIC = {"and": "&", "or": "|", "xor": "^"}
ATOMIC = {"add": "*q_+v_", "min": "(*q_<v_?*q_:v_)", "max": "(*q_>v_?*q_:v_)"}


def _operand(text: str) -> str:
    text = text.strip()
    if text in SPECIAL:
        return SPECIAL[text]
    if found := re.fullmatch(r"%([a-z]+)(\d*)", text):
        return found[1] + found[2]
    for prefix, code in (("0d", ">d"), ("0f", ">f")):
        if text.startswith(prefix):
            (value,) = struct.unpack(code, bytes.fromhex(text[2:]))
            return "NAN" if value != value else f"({value.hex()})".replace("(inf)", "INFINITY")
    if re.fullmatch(r"-?\d+", text):
        return f"({text}ll)" if abs(int(text)) < 2**63 else f"{text}ull"
    if re.fullmatch(r"0x[0-9A-Fa-f]+U?", text):
        return text.rstrip("U") + "ull"
    if re.fullmatch(r"[\w$]+", text):
        return f"((u64){text.replace('$', '_D_')})"
    raise ValueError(text)


def _address(text: str) -> str:
    found = re.fullmatch(r"\[(.+?)(?:\+(-?\d+))?\]", text.strip())
    assert found is not None, text
    return f"({_operand(found[1])}+({found[2] or 0}ll))"


def _arguments(text: str) -> list[str]:
    return [part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text)] if text else []


def _instruction(op: str, args: list[str], params: dict[str, tuple[int, str]]) -> str:
    parts = op.split(".")
    name, kind = parts[0], TYPES.get(parts[-1], "")

    def raw(i: int) -> str:
        return _operand(args[i])

    def cast(i: int) -> str:
        return f"({kind})({raw(i)})"

    def memory(text: str) -> str:
        at = _address(text)
        return f"check(sizeof({kind}),{at})" if parts[1] == "global" else at

    match name:
        case "ret":
            return "return"
        case "bra":
            return f"goto {args[0].replace('$', 'L_')}"
        case "nanosleep":
            return ""
        case "bar":
            return "warp_barrier_(tid)" if parts[1] == "warp" else "block_barrier_(tid)"
        case "shfl":
            assert parts[1:3] == ["sync", "bfly"], op
            target = _operand(args[0].partition("|")[0])
            return f"{target}=shuffle_xor_(tid,{raw(1)},{raw(2)})"
        case "ld" if parts[1] == "param":
            index, declared = params[args[1][1:-1]]
            return f"{raw(0)}=*({TYPES[declared]}*)params[{index}]"
        case "ld":
            return f"{raw(0)}=*({kind}*){memory(args[1])}"
        case "st":
            return f"*({kind}*){memory(args[0])}=({kind})({raw(1)})"
        case "mov" if args[0].startswith("{"):
            low, high = (part.strip() for part in args[0][1:-1].split(","))
            halves = [(low, ""), (high, ">>32")]
            return ";".join(
                f"{_operand(to)}=(u32)(({raw(1)}){by})" for to, by in halves if to != "_"
            )
        case "mov" if args[1].startswith("{"):
            low, high = args[1][1:-1].split(",")
            return f"{raw(0)}=(u64)(u32)({_operand(low)})|((u64)(u32)({_operand(high)})<<32)"
        case "mov" | "cvta":
            return f"{raw(0)}={raw(1)}"
        case "add" | "sub":
            return f"{raw(0)}=({kind})({cast(1)}{'+' if name == 'add' else '-'}{cast(2)})"
        case "and" | "or" | "xor" if parts[-1] == "pred":
            return f"{raw(0)}=(({raw(1)})!=0){LOGIC[name]}(({raw(2)})!=0)"
        case "and" | "or" | "xor":
            return f"{raw(0)}=({raw(1)}){LOGIC[name]}({raw(2)})"
        case "not":
            return f"{raw(0)}=" + (f"!{raw(1)}" if parts[-1] == "pred" else f"({kind})~{raw(1)}")
        case "atom":
            return (
                f"{kind}*q_=({kind}*){memory(args[1])}; {kind} v_=({kind})({raw(2)}), o_=*q_; "
                f"*q_={ATOMIC[parts[2]]}; {raw(0)}=o_"
            )
        case "fma":
            return f"{raw(0)}={'fmaf' if kind == 'f32' else 'fma'}({raw(1)},{raw(2)},{raw(3)})"
        case "mul" if kind in ("f32", "f64"):
            return f"{raw(0)}=({raw(1)})*({raw(2)})"
        case "sqrt":
            return f"{raw(0)}={'sqrtf' if kind == 'f32' else 'sqrt'}({raw(1)})"
        case "rcp":
            return f"{raw(0)}=1.0/({raw(1)})"
        case "abs":
            return f"{raw(0)}=" + (f"fabs({raw(1)})" if kind[0] == "f" else f"llabs({cast(1)})")
        case "neg":
            return f"{raw(0)}=({kind})-{cast(1)}"
        case "shl":
            return f"{raw(0)}=shl{parts[-1][1:]}({raw(1)},{raw(2)})"
        case "shr":
            signed = "s" if parts[-1][0] == "s" else "u"
            return f"{raw(0)}=shr{signed}{parts[-1][1:]}({raw(1)},{raw(2)})"
        case "mul" | "mad" if parts[1] == "wide":
            wide = "s64" if parts[-1][0] == "s" else "u64"
            product = f"(u64)(({wide}){cast(1)}*({wide}){cast(2)})"
            return f"{raw(0)}={product}" + (f"+({raw(3)})" if name == "mad" else "")
        case "mul" if parts[1] == "hi":
            return f"{raw(0)}=(u64)(((unsigned __int128)({raw(1)})*(u64)({raw(2)}))>>64)"
        case "mul" | "mad":
            unsigned = "u" + parts[-1][1:]
            product = f"({unsigned})({raw(1)})*({unsigned})({raw(2)})"
            return f"{raw(0)}={product}" + (f"+({raw(3)})" if name == "mad" else "")
        case "div" | "rem":
            return f"{raw(0)}=({kind})({cast(1)}{'/' if name == 'div' else '%'}{cast(2)})"
        case "max" | "min":
            sign = ">" if name == "max" else "<"
            return f"{raw(0)}=({kind})({cast(1)}{sign}{cast(2)}?{cast(1)}:{cast(2)})"
        case "setp":
            return f"{raw(0)}=({cast(1)}{COMPARE[parts[1]]}{cast(2)})"
        case "selp":
            return f"{raw(0)}={raw(3)}?({raw(1)}):({raw(2)})"
        case "cvt":
            into, of = (TYPES[part] for part in parts[1:] if part in TYPES)
            return f"{raw(0)}=({into})({of})({raw(1)})"
        case "bfi":
            return f"{raw(0)}=bfi64({raw(1)},{raw(2)},{raw(3)},{raw(4)})"
        case "prmt":
            return f"{raw(0)}=prmt({raw(1)},{raw(2)},{raw(3)})"
    raise ValueError(f"{op} is not known to the stand-in")


def to_c(text: str) -> tuple[str, list[int]]:
    """The kernel of a PTX module as C, and the sizes of its parameters."""
    text = re.sub(r"//.*", "", text)
    declared = []
    for space, name, size, data in re.findall(
        r"\.(const|global|shared) \.align \d+ \.b8 ([\w$]+)\[(\d+)\](?: = \{([^}]*)\})?", text
    ):
        const = "const " if space == "const" else ""
        declared.append(
            f"static {const}u8 {name.replace('$', '_D_')}[{size}] __attribute__((aligned(8)))"
            f" = {{{data or 0}}};"
        )
    found = re.search(
        r"\.visible \.entry ([\w$]+)\(\s*(.*?)\)\s*(?:\.\w+[^{]*)?\{(.*?)^\}", text, re.S | re.M
    )
    assert found is not None
    names = re.findall(r"\.param \.(\w+) ([\w$]+)", found[2])
    params = {name: (i, kind) for i, (kind, name) in enumerate(names)}
    body = re.sub(r"^\s*[{}]\s*$", "", found[3], flags=re.M)
    lines = []
    for kind, name, count in re.findall(r"\.reg \.(\w+)\s+%(\w+)<(\d+)>;", body):
        ctype = "int" if kind == "pred" else TYPES[kind]
        lines.append(f"{ctype} " + ",".join(f"{name}{i}=0" for i in range(int(count))) + ";")
    scratch = re.findall(r"\.reg \.(\w+)\s+%([a-z]+);", body)
    lines += [f"{TYPES[kind]} {name}=0;" for kind, name in sorted({*scratch}, key=lambda s: s[1])]
    for statement in re.split(r";|(?<=:)\s", body):
        one = re.sub(r"^([{}] ?)+(?=[.@\w$]|$)", "", " ".join(statement.split()))
        if not one or one.startswith("."):
            continue
        if label := re.fullmatch(r"(\$?[\w$]+):", one):
            lines.append(label[1].replace("$", "L_") + ":;")
            continue
        condition = ""
        if guarded := re.match(r"@(!?)%(p\d+) (.*)", one):
            condition, one = f"if({guarded[1]}{guarded[2]}) ", guarded[3]
        op, _, rest = one.partition(" ")
        lines.append(f"{condition}{{{_instruction(op, _arguments(rest), params)};}}")
    waits = re.search(r"\b(bar|shfl)\.", body)
    head = "static void kernel_(void **params, u32 tid, u32 ctaid, u32 ntid, u32 nctaid) {"
    code = "\n".join([HEAD, *declared, head, *lines, "}", WAITING if waits else PLAIN])
    return code, [SIZES[kind] for kind, _ in names]


def build(folder: Path, code: str, *options: str) -> Path:
    """Compile C to a shared library."""
    name = hashlib.sha256((code + " ".join(options)).encode()).hexdigest()[:20]
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(code)
    command = ["gcc", "-O1", "-w", "-fwrapv", "-ffp-contract=off", "-mfma", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, source, "-lm", *options], check=True)
    return library


@frozen
class Compiled:
    """A kernel as a function of the process."""

    run: Any
    sizes: Sequence[int]

    def launch(
        self, parameters: int, grid: int, block: int
    ) -> Callable[[Sequence[tuple[int, int]]], int]:
        """Take the arguments; return what runs it on memory of these places, beginning and end.

        It returns the address of an access outside them, or 0.
        """
        values = (c.c_uint64 * max(len(self.sizes), 1))()
        for i, size in enumerate(self.sizes):
            at = c.c_uint64.from_address(parameters + 8 * i).value
            c.memmove(c.addressof(values) + 8 * i, at, size)
        places = (c.addressof(values) + 8 * i for i in range(len(values)))
        pointers = (c.c_void_p * len(values))(*places)

        def run(places: Sequence[tuple[int, int]]) -> int:
            n, _ = len(places), values
            low, high = ((c.c_uint64 * n)(*ends) for ends in zip(*places, strict=True))
            return int(self.run(pointers, grid, block, low, high, n))

        return run


_folder = tempfile.TemporaryDirectory(prefix="ptx-")


def compiled(text: str) -> Compiled:
    """The kernel of a PTX module."""
    code, sizes = to_c(text)
    library = c.CDLL(str(build(Path(_folder.name), code)))
    library.run.restype = c.c_uint64
    return Compiled(library.run, sizes)
