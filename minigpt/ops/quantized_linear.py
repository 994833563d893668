"""quantized_linear: a linear layer whose matrix is of integers of 8 or 4 bits.

One token costs the time in which all weights come from memory (reader.py): a quarter or an eighth of the bytes is a
quarter or an eighth of that time. A number of w (I, O) becomes an integer q times a scale s, which the 32 numbers of a
group share: 32 inputs i of one output o, so that within a group the sum over i is one of integers.

    (1)  s = max over the group of |w| / top         top = 127 for int8, 7 for int4; s is rounded up to bfloat16
    (2)  q = round(w / s)                            |q| <= top
    (3)  w ~ s q                                     |w - s q| <= s / 2: the most that rounding does

bfloat16 is a float32 without its last 16 bits: the range of float32, and a product s q has a float32 of its own. So a
number takes 8 + 16 / 32 = 8.5 bits, or 4.5. The input is rounded as well, row by row and in groups of the same inputs,
with a step t that is not kept and so needs no bfloat16:

    (4)  t = max over the group of |x| / 127         p = round(x / t)
    (5)  z = sum over i in the group of p q          integers: exact, at most 32 * 127 * 127, below 2^24
    (6)  y = sum over groups of (t s) z + b          y (..., O)

A group of zeros has s = t = 0 and q = p = 0; so has one of x whose t would be below 2^-126, as no float32 is its inverse.
How exact is it? An error of rounding is as good as random between -s / 2 and s / 2, of standard deviation s / 12^0.5: for
int8, and for x, 0.2% of the group's largest number, for int4 4%. In a sum over many inputs errors partly cancel, as the
terms do. What is left of them in a model's loss has to be measured (minigpt/quantize.py).

The layout of q and s is the kernel's. A panel is 16 columns of w; of these, 4 rows at a time lie together, each column's 4
numbers side by side, since that is what the CPU multiplies and adds at once. What I lacks of whole groups and O of whole
panels is zeros.

    q       int8    (panels, I / 4, 16, 4) of int8         q[P, r, c, j] is row 4 r + j, column 16 P + c
            int4    (panels, I / 8, 16, 4) of uint8        q[P, r, c, j] holds row 8 r + j, column 16 P + c, plus 8 in its
                                                           lower half, and row 8 r + 4 + j plus 8 in its upper half
    scales          (panels, I / 32, 16) of uint16         bfloat16's bits, since NumPy has no such type

There is no backward pass: nobody learns with rounded weights here. All of it is of float32.
"""
import numpy as np

from ..op import kernel

GROUP, COLUMNS = 32, 16
TOP = {8: 127, 4: 7}                                # the largest integer of so many bits


def quantize_matrix(w, bits):
    """(1) (2): w (I, O) of float32, finite -> (q, scales)."""
    groups, panels = -(-w.shape[0] // GROUP), -(-w.shape[1] // COLUMNS)
    padded = np.zeros((groups * GROUP, panels * COLUMNS), np.float32)
    padded[:w.shape[0], :w.shape[1]] = w
    w = padded.reshape(groups, GROUP, panels * COLUMNS)
    scales = bfloat16_above(np.abs(w).max(axis=1) / np.float32(TOP[bits]))              # (1)  (groups, columns)
    s = from_bfloat16(scales)[:, None]
    q = np.rint(np.divide(w, s, out=np.zeros_like(w), where=s > 0)).astype(np.int8)     # (2)  (groups, 32, columns)
    return pack(q.reshape(padded.shape), bits), np.ascontiguousarray(
        scales.reshape(groups, panels, COLUMNS).transpose(1, 0, 2))


def dequantize_matrix(q, scales, shape):
    """(3): the matrix (I, O) = shape of float32 that is meant by q and scales."""
    s = from_bfloat16(scales).transpose(1, 0, 2).reshape(scales.shape[1], 1, -1)        # (groups, 1, columns)
    integers = unpack(q)
    w = s * integers.reshape(scales.shape[1], GROUP, -1)
    return np.ascontiguousarray(w.reshape(integers.shape)[:shape[0], :shape[1]])


def quantized_rows(q, scales, numbers, n_in):
    """(3) for the columns `numbers` of w, integers of any shape -> (..., n_in): rows of a table whose transpose w is."""
    panel, column = np.divmod(numbers, COLUMNS)
    integers = q[panel, :, column].reshape(*numbers.shape, -1, GROUP)                   # int8 only
    return (from_bfloat16(scales[panel, :, column])[..., None] * integers).reshape(*numbers.shape, -1)[..., :n_in]


def pack(q, bits):
    """Integers (I, O) of int8, whole groups and panels, in the layout of q."""
    q = q.reshape(-1, 4, q.shape[1] // COLUMNS, COLUMNS).transpose(2, 0, 3, 1)          # (panels, I / 4, 16, 4)
    if bits == 8:
        return np.ascontiguousarray(q)
    q = (q + 8).view(np.uint8)
    return np.ascontiguousarray(q[:, ::2] | q[:, 1::2] << 4)


def unpack(q):
    """The integers (I, O) of int8 that were packed."""
    if q.dtype == np.uint8:
        q = np.stack([q & 15, q >> 4], axis=2).view(np.int8) - np.int8(8)               # (panels, I / 8, 2, 16, 4)
    q = q.reshape(len(q), -1, COLUMNS, 4)
    return np.ascontiguousarray(q.transpose(1, 3, 0, 2)).reshape(4 * q.shape[1], -1)


def bfloat16_above(x):
    """Bits of the least bfloat16 that is not below x, which is at least 0."""
    return (x.astype(np.float32).view(np.uint32) + 0xFFFF >> 16).astype(np.uint16)


def from_bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def quantize_rows(x):
    """(4): x (N, I) -> p (N, groups, 32), integers as float32, and t (N, groups)."""
    G = -(-x.shape[1] // GROUP)
    groups = np.zeros((len(x), G, GROUP), np.float32)
    groups.reshape(len(x), G * GROUP)[:, :x.shape[1]] = x
    most = np.abs(groups).max(axis=2)
    t = most * np.float32(1 / 127)
    t[t < np.finfo(np.float32).tiny] = 0
    infinite = ~np.isfinite(most)                   # no integers are near: y becomes nan by t
    groups[infinite], t[infinite] = 0, np.nan
    inverse = np.divide(127, most, out=np.zeros_like(most), where=t > 0)
    return np.rint(groups * inverse[:, :, None]), t


def quantized_linear(x, q, scales, b=None, *, n_out):
    p, t = quantize_rows(x.reshape(x.size // x.shape[-1], x.shape[-1]))                 # (4)  (N, groups, 32)
    s = from_bfloat16(scales).transpose(1, 0, 2).reshape(scales.shape[1], -1)           # (groups, columns)
    w = unpack(q).reshape(*p.shape[1:], -1)                                             # (groups, 32, columns)
    y = np.zeros((len(p), w.shape[2]), np.float32)
    with np.errstate(over="ignore"):                # of inputs near the end of float32: inf, as in the compiled version
        for g in range(len(w)):
            z = p[:, g] @ w[g].astype(np.float32)                                       # (5)  (N, columns): exact
            y += t[:, g, None] * s[g] * z                                               # (6)
    y = y[:, :n_out] if b is None else y[:, :n_out] + b
    return np.ascontiguousarray(y).reshape(*x.shape[:-1], n_out)


def check(x, q, scales, b=None, *, n_out):
    panels, groups = -(-n_out // COLUMNS), -(-x.shape[-1] // GROUP)
    lines = {"b": GROUP // 4, "B": GROUP // 8}.get(q.dtype.char)
    if lines is None or (scales.dtype.char, x.dtype.char, "f" if b is None else b.dtype.char) != ("H", "f", "f"):
        raise TypeError(f"quantized_linear: x and b have to be of float32, q of int8 or uint8 and scales of uint16, not "
                        f"{x.dtype}, {None if b is None else b.dtype}, {q.dtype} and {scales.dtype}")
    if not panels * groups:
        raise ValueError("quantized_linear: the matrix has no numbers")
    if q.shape != (panels, groups * lines, COLUMNS, 4) or scales.shape != (panels, groups, COLUMNS) \
            or (b is not None and b.shape != (n_out,)):
        raise ValueError(f"quantized_linear: integers {q.shape}, scales {scales.shape} and a shift of "
                         f"{None if b is None else b.shape} are no layer from {x.shape[-1]} to {n_out}")


quantized_linear = kernel(quantized_linear, check)
