"""quantized_linear: the reference is what its chapter defines, and each compiled version is the reference."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt import ops
from minigpt.kernels import cpu
from minigpt.ops.quantized_linear import dequantize_matrix, quantize_matrix, quantize_rows, quantized_rows

SOURCES = Path(__file__).parents[1] / "ext" / "cpu"
TOP = {8: 127, 4: 7}
VALUES = "normal", "zeros", "huge", "tiny", "mixed"
both_bits = pytest.mark.parametrize("bits", [8, 4])
compiled = pytest.mark.skipif(not cpu.available(), reason="no compiled kernels")


def numbers(rng, shape, kind):
    """float32 numbers of a kind: products of two huge ones are just finite; tiny ones are subnormal in part."""
    x = rng.normal(size=shape)
    size = {"normal": 1, "zeros": 0, "huge": 1e16, "tiny": 1e-38}.get(kind)
    if size is None:                                        # each row of its own size, and zeros among them
        size = 10.0 ** rng.integers(-9, 9, size=(*shape[:-1], 1)) * rng.integers(2, size=shape)
    return (x * size).astype(np.float32)


def as_written(q, scales):
    """(3) from the layout, index by index: integers (I, O) and scales (I / 32, O), both of float64."""
    panels, lines, bits = len(q), q.shape[1], 8 if q.dtype == np.int8 else 4
    integers = np.zeros((lines * (4 if bits == 8 else 8), 16 * panels))
    s = np.zeros((scales.shape[1], 16 * panels))
    for P in range(panels):
        for c in range(16):
            for g in range(scales.shape[1]):
                s[g, 16 * P + c] = np.array([int(scales[P, g, c]) << 16], np.uint32).view(np.float32)[0]
            for r in range(lines):
                for j in range(4):
                    if bits == 8:
                        integers[4 * r + j, 16 * P + c] = q[P, r, c, j]
                    else:
                        integers[8 * r + j, 16 * P + c] = int(q[P, r, c, j]) % 16 - 8
                        integers[8 * r + 4 + j, 16 * P + c] = int(q[P, r, c, j]) // 16 - 8
    return integers, s


def as_defined(x, q, scales, b, n_out):
    """(4)-(6) in float64 -> y, and the sum of the terms' magnitudes."""
    integers, s = as_written(q, scales)
    y, size = np.zeros((len(x), n_out)), np.zeros((len(x), n_out))
    for n, row in enumerate(x):
        for g in range(len(s)):
            group = np.zeros(32)
            group[:len(row[32 * g:32 * g + 32])] = row[32 * g:32 * g + 32]
            t = np.float32(np.abs(group).max()) * np.float32(1 / 127)
            if t < np.finfo(np.float32).tiny:
                continue
            inverse = np.float32(127) / np.float32(np.abs(group).max())
            term = t.astype(float) * s[g] * (np.rint(group.astype(np.float32) * inverse) @ integers[32 * g:32 * g + 32])
            y[n] += term[:n_out]
            size[n] += np.abs(term[:n_out])
    return (y, size) if b is None else (y + b, size + np.abs(b))


def assert_equal(y, expected, size):
    assert np.all(np.abs(y - expected) <= 1e-6 * size + 1e-40), np.max(np.abs(y - expected) / (size + 1e-40))


@both_bits
@given(I=st.integers(1, 130), O=st.integers(1, 40), kind=st.sampled_from(VALUES), seed=st.integers(0, 999))
def test_a_number_is_off_by_half_a_step_at_most(I, O, kind, bits, seed):
    w = numbers(np.random.default_rng(seed), (I, O), kind)
    q, scales = quantize_matrix(w, bits)
    integers, s = as_written(q, scales)
    assert np.abs(integers).max() <= TOP[bits]
    assert not integers[I:].any() and not integers[:, O:].any()
    step = np.repeat(s, 32, axis=0)[:I, :O]
    meant = step * integers[:I, :O]
    assert np.all(np.abs(meant - w) <= step / 2 * (1 + 1e-6))
    groups = np.zeros((len(s) * 32, O))
    groups[:I] = np.abs(w)
    most = groups.reshape(len(s), 32, O).max(axis=1)
    assert np.all(s[:, :O] <= most / TOP[bits] * (1 + 2 ** -7) + 1e-40) and np.all((s[:, :O] == 0) == (most == 0))
    np.testing.assert_array_equal(dequantize_matrix(q, scales, (I, O)), meant.astype(np.float32))


@given(I=st.integers(1, 70), O=st.integers(1, 40), seed=st.integers(0, 999))
def test_columns_are_the_rows_of_a_table(I, O, seed):
    rng = np.random.default_rng(seed)
    q, scales = quantize_matrix(numbers(rng, (I, O), "normal"), 8)
    ids = rng.integers(O, size=(2, 3))
    np.testing.assert_array_equal(quantized_rows(q, scales, ids, I), dequantize_matrix(q, scales, (I, O)).T[ids])


@both_bits
@given(N=st.integers(0, 4), I=st.integers(1, 100), O=st.integers(1, 40), bias=st.booleans(),
       kinds=st.tuples(st.sampled_from(VALUES), st.sampled_from(VALUES)), seed=st.integers(0, 999))
def test_it_is_what_the_chapter_defines(N, I, O, bits, bias, kinds, seed, backend):
    rng = np.random.default_rng(seed)
    x, w, b = numbers(rng, (N, I), kinds[0]), numbers(rng, (I, O), kinds[1]), numbers(rng, (O,), "normal")
    q, scales = quantize_matrix(w, bits)
    y = ops.quantized_linear(x, q, scales, b if bias else None, n_out=O)
    assert (y.shape, y.dtype) == ((N, O), np.float32)
    assert_equal(y, *as_defined(x, q, scales, b if bias else None, O))


SIZES = st.integers(1, 70) | st.sampled_from([96, 127, 300])


@compiled
@both_bits
@given(N=st.integers(0, 40), I=SIZES, O=SIZES, bias=st.booleans(), threads=st.integers(1, 4),
       kinds=st.tuples(st.sampled_from(VALUES), st.sampled_from(VALUES)), seed=st.integers(0, 999))
def test_compiled_it_is_the_reference(N, I, O, bits, bias, threads, kinds, seed):
    rng = np.random.default_rng(seed)
    x, w, b = numbers(rng, (N, I), kinds[0]), numbers(rng, (I, O), kinds[1]), numbers(rng, (O,), "normal")
    q, scales = quantize_matrix(w, bits)
    arguments = (x, q, scales, b if bias else None)
    before = cpu.threads()
    cpu.set_threads(threads)
    try:
        y = ops.quantized_linear.versions["cpu"](*arguments, n_out=O)
    finally:
        cpu.set_threads(before)
    size = np.abs(x).astype(np.float64) @ np.abs(dequantize_matrix(q, scales, w.shape)) + np.abs(b)
    assert_equal(y, ops.quantized_linear.versions["reference"](*arguments, n_out=O).astype(np.float64), 1.1 * size)


@both_bits
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 3e38])
def test_a_row_with_what_is_no_number_is_none_and_others_are_as_before(bits, value, backend):
    rng = np.random.default_rng(3)
    x, w = numbers(rng, (14, 70), "normal"), numbers(rng, (70, 20), "normal")
    w[:32] = 0
    q, scales = quantize_matrix(w, bits)
    right = ops.quantized_linear(x, q, scales, n_out=20)
    x[5, 3] = x[6, 40] = value
    y = ops.quantized_linear(x, q, scales, n_out=20)
    assert np.isfinite(y[[5, 6]]).any() == np.isfinite(value)
    np.testing.assert_array_equal(np.delete(y, [5, 6], axis=0), np.delete(right, [5, 6], axis=0))


@both_bits
def test_a_row_is_the_same_bits_in_any_company_and_by_any_number_of_threads(bits, backend):
    rng = np.random.default_rng(4)
    x, w = numbers(rng, (30, 200), "normal"), numbers(rng, (200, 1000), "normal")
    q, scales = quantize_matrix(w, bits)
    whole, before = ops.quantized_linear(x, q, scales, n_out=1000), cpu.threads()
    for threads in 1, 2, 3:
        cpu.set_threads(threads)
        for begin, end in (0, 1), (3, 5), (4, 7), (4, 8), (0, 5), (0, 6), (1, 8), (2, 10), (0, 11), (0, 12), (7, 20), (0, 25):
            np.testing.assert_array_equal(ops.quantized_linear(x[begin:end], q, scales, n_out=1000), whole[begin:end])
    cpu.set_threads(before)


def test_axes_before_the_last_are_rows(backend):
    rng = np.random.default_rng(5)
    x, w = numbers(rng, (2, 3, 40), "normal"), numbers(rng, (40, 7), "normal")
    y = ops.quantized_linear(x, *quantize_matrix(w, 4), n_out=7)
    np.testing.assert_array_equal(y, ops.quantized_linear(x.reshape(6, 40), *quantize_matrix(w, 4), n_out=7).reshape(2, 3, 7))
    assert ops.quantized_linear(x[0, 0], *quantize_matrix(w, 4), n_out=7).shape == (7,)


def test_rows_are_rounded_to_integers():
    p, t = quantize_rows(np.float32([[1, -127, 0.4, 0.6] + [0] * 29]))
    assert p.shape == (1, 2, 32) and p[0, 0, :4].tolist() == [1, -127, 0, 1] and t.tolist() == [[1, 0]]


@pytest.mark.parametrize("wrong", [
    {"x": np.zeros((3, 65), np.float32)}, {"x": np.zeros((3, 64))}, {"q": np.zeros((2, 16, 16, 4), np.uint8)},
    {"q": np.zeros((2, 16, 16, 4), np.int16)}, {"scales": np.zeros((2, 3, 16), np.uint16)},
    {"scales": np.zeros((2, 2, 16), np.int16)}, {"b": np.zeros(21, np.float32)}, {"b": np.zeros(20)},
    {"x": np.zeros((3, 0), np.float32)}], ids=lambda wrong: next(iter(wrong)))
def test_arguments_that_do_not_fit_are_refused(wrong, backend):
    right = {"x": np.zeros((3, 64), np.float32), "q": np.zeros((2, 16, 16, 4), np.int8),
             "scales": np.zeros((2, 2, 16), np.uint16), "b": np.zeros(20, np.float32)}
    ops.quantized_linear(*right.values(), n_out=20)
    with pytest.raises((ValueError, TypeError), match="quantized_linear"):
        ops.quantized_linear(*(right | wrong).values(), n_out=20)


# ---- other CPUs ----

SAVE = """
import sys, numpy as np
from minigpt import ops
given = np.load(sys.argv[1])
np.savez(sys.argv[2], *[ops.quantized_linear(given["x"][:n], given[f"q{bits}"], given[f"scales{bits}"], given["b"], n_out=45)
                        for bits in (8, 4) for n in (1, 2, 3, 5, 20)])
"""


@compiled
def test_with_and_without_avx_512_it_is_the_reference(tmp_path):
    rng = np.random.default_rng(6)
    x, w, b = numbers(rng, (20, 100), "normal"), numbers(rng, (100, 45), "normal"), numbers(rng, (45,), "normal")
    packed = {bits: quantize_matrix(w, bits) for bits in TOP}
    packed[8][0][0, :, 3] = -128                            # what no matrix of ours has, but a file may
    np.savez(tmp_path / "given.npz", x=x, b=b, **{f"q{bits}": p[0] for bits, p in packed.items()},
             **{f"scales{bits}": p[1] for bits, p in packed.items()})
    reference = ops.quantized_linear.versions["reference"]
    expected = [reference(x[:n], *packed[bits], b, n_out=45) for bits in TOP for n in (1, 2, 3, 5, 20)]
    for choice in "1", "0":
        environment = os.environ | {"MINIGPT_AVX512": choice, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", SAVE, tmp_path / "given.npz", tmp_path / f"{choice}.npz"], check=True,
                       env=environment, timeout=120)
        for y, right in zip(np.load(tmp_path / f"{choice}.npz").values(), expected, strict=True):
            np.testing.assert_allclose(y, right, rtol=0, atol=2e-5 * np.abs(right).max())


PLAIN = r"""
#include <stdio.h>
#include "quantized_linear.h"

static void get(void *to, size_t size, long n) { if (fread(to, size, n, stdin) != (size_t)n) exit(1); }

int main(void)                                  /* the arrays of a product come in, y goes out */
{
    long sizes[6];                              /* n, n_in, n_out, groups, bits, parts */
    get(sizes, sizeof *sizes, 6);
    long n = sizes[0], n_in = sizes[1], n_out = sizes[2], G = sizes[3], bits = sizes[4], panels = (n_out + 15) / 16;
    float *x = malloc(n * n_in * 4), *b = malloc(n_out * 4), *y = malloc(n * n_out * 4), *steps = malloc(n * G * 4);
    uint8_t *q = malloc(panels * G * bits * 64);
    uint16_t *scales = malloc(panels * G * 32);
    int8_t *rows = malloc(n * G * 32);
    int32_t *sums = malloc(n * G * 4);
    get(x, 4, n * n_in); get(q, 64, panels * G * bits); get(scales, 32, panels * G); get(b, 4, n_out);
    for (long i = 0; i < n; i++)
        quantize_row(n_in, x + i * n_in, rows + i * G * 32, steps + i * G, sums + i * G);
    Product p = {n, G, n_out, sizes[5], (int)bits, rows, steps, sums, q, scales, b, y};
    for (long part = 0; part < p.parts; part++)
        product_part(&p, part);
    fwrite(y, 4, n * n_out, stdout);
    free(x); free(b); free(y); free(steps); free(q); free(scales); free(rows); free(sums);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None or not SOURCES.exists(), reason="no gcc, or no kernel sources")
@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["-march=x86-64-v3"]], ids=["plain", "avx2"])
def test_for_other_cpus_and_with_sanitizers_it_is_the_reference(tmp_path, flags):
    """Plain C, AVX2, and VNNI where there is one; no access outside of its arrays, no overflow."""
    (tmp_path / "plain.c").write_text(PLAIN)
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", f"-I{SOURCES}", *flags]
    build = subprocess.run(["gcc", *flags, tmp_path / "plain.c", "-lm", "-o", tmp_path / "plain"], capture_output=True,
                           text=True)
    if build.returncode:
        pytest.skip(f"this gcc can't do that: {build.stderr.splitlines()[-1]}")
    rng = np.random.default_rng(7)
    for bits, avx512 in (8, "0"), (4, "0"), (8, "1"), (4, "1"):
        for N, I, O, parts in (1, 100, 70, 1), (1, 33, 130, 3), (3, 64, 45, 2), (6, 40, 100, 1), (29, 70, 50, 1):
            x, w, b = numbers(rng, (N, I), "mixed"), numbers(rng, (I, O), "normal"), numbers(rng, (O,), "normal")
            x[0, 0] = (1, np.inf, np.nan)[N % 3] if N > 1 else 1
            q, scales = quantize_matrix(w, bits)
            sizes = np.array([N, I, O, scales.shape[1], bits, parts], np.int64)
            result = subprocess.run([tmp_path / "plain"], env=os.environ | {"MINIGPT_AVX512": avx512}, timeout=120,
                                    input=b"".join(a.tobytes() for a in (sizes, x, q, scales, b)), capture_output=True)
            assert result.returncode == 0, result.stderr.decode()
            y = np.frombuffer(result.stdout, np.float32).reshape(N, O)
            right = ops.quantized_linear.versions["reference"](x, q, scales, b, n_out=O)
            size = np.abs(x) @ np.abs(dequantize_matrix(q, scales, w.shape)) + np.abs(b)
            finite = np.isfinite(right)
            assert (np.isfinite(y) == finite).all()
            assert np.all(np.abs(y - right)[finite] <= 2e-6 * size[finite])
