"""The tests of the tests of kernels: break each text on purpose, and see it reported.

BROKEN lists, for each chapter, a piece of ext/cuda, what a tired author could have written in its place, and what is to
be said of it: the checker's report, with kernel, block, thread and line, or "differs", where only the result is wrong.
Each piece must stand exactly once in the text, so the table can't quietly part from the code.
"""
import re

import numpy as np
import pytest
from cuda_emu import emulator, stand_in
from cuda_emu.cases import check_chapter
from cuda_emu.emulator import EmulatorError

from minigpt import kernels
from minigpt.kernels.cuda import launch

pytestmark = pytest.mark.skipif(kernels.cuda.switched_off(), reason="MINIGPT_KERNELS=none")
DIFFERS = "differs"
THERE = f"__syncthreads();{48 * ' '}// all tiles are there\n        "      # in each kernel of attention
READY = f"__syncwarp();{51 * ' '}// the weights of its rows are there\n        "
IF_SEEDS = "if (seeds)\n            dropout.of_"
BROKEN = {                                          # chapter: (true text, broken text, what is said)
    "layer_norm": [
        # common.cuh
        ("    __syncthreads();                                                    // all warps have", "//",
         "layer_norm_forward.* (reads shared memory that was not written|races: reads what).*common.cuh"),
        ("    __syncthreads();                                                    // all have read", "//",
         r"races: writes what another thread read \(thread \d+\).*static shared memory.*common.cuh"),
        ("if (threadIdx.x % 32 == 0)\n", "", "races: writes what another thread wrote.*common.cuh"),
        ("of_warp[32]", "of_warp[1]", "an index is outside its array, at common.cuh:|shared memory"),
        ("warp < blockDim.x / 32", "warp <= blockDim.x / 32", "reads shared memory that was not written.*common.cuh"),
        ("distance = 16", "distance = 8", DIFFERS),
        ("distance /= 2)\n", "distance /= 4)\n", DIFFERS),
        ("value = over_warp<How>(value);", "if (threadIdx.x % 32 < 16) value = over_warp<How>(value);",
         "waits for lane.* of its warp"),
        ("of_warp[threadIdx.x / 32] = value;\n    __syncthreads();",
         "{ of_warp[threadIdx.x / 32] = value; __syncthreads(); }",
         "races: reads what another thread wrote.*common.cuh|__syncthreads, while others of the block wait"),
        # layer_norm.cu
        ("- mean_dxh -", "-", DIFFERS),
        ("/ C + eps", "/ C", DIFFERS),
        ("row += gridDim.x", "row += gridDim.x + 1", DIFFERS),
        ("row < N;", "row <= N;", "layer_norm_backward.*reads out of bounds.*layer_norm.cu"),
        ("own = (long long)blockIdx.x * C", "own = 0", "layer_norm_backward.*races with another block.*layer_norm.cu"),
        ("db[own + c] += dy[row * C + c];", "db[own + c + 1] += dy[row * C + c];",
         "layer_norm_backward.*(races|out of bounds).*layer_norm.cu"),
        ("begin = row * C;", "begin = row * (C + 1);",
         "layer_norm_forward.*reads out of bounds.*argument 0.*layer_norm.cu"),
        ("    if (threadIdx.x == 0) {", "    {", "layer_norm_forward.*races: writes what.*argument 5.*layer_norm.cu"),
        ("(b ? b[c] : 0)", "b[c]", "layer_norm_forward.*reads out of bounds.*layer_norm.cu"),
        ("for (long long row = blockIdx.x;", "if (threadIdx.x >= C) return;\n    for (long long row = blockIdx.x;",
         "waits for lane .* of its warp, which has ended"),
    ],
    "attention": [
        # tiles.cuh
        ("ROW = WIDTH / 4 + 1", "ROW = WIDTH / 4 + 2",
         "attention_forward.*writes out of bounds.*dynamic shared.*attention.cu"),
        ("distance = 4;", "distance = 2;", DIFFERS),
        ("i += THREADS", "i += THREADS - 1", "attention_forward.*races: writes what another.*shared.*tiles.cuh"),
        ("first + row < N && d < D ?", "d < D ?",
         "attention_forward.*reads out of bounds.*argument (0|1|2).*tiles.cuh"),
        ("first + row < N && d < D ?", "first + row < N ?",
         "attention_forward.*reads out of bounds.*argument (0|1|2).*tiles.cuh|differs"),
        ("first + own_row(i) < N && ", "",
         "attention_forward.*(writes out of bounds|another block).*argument 9.*tiles.cuh"),
        (" && column(j) < D)", ")", "attention_forward.*(races|out of bounds).*argument 9.*tiles.cuh"),
        ("b[other_row(j) * ROW + d]", "b[other_row(j) * ROW + d + 1]",
         "attention_forward.*reads shared memory that was not written.*tiles.cuh"),
        # attention.cu, the forward pass
        (THERE + IF_SEEDS + "queries<R>(weights, head, t0, s0);\n        real x[R][OTHER];",
         IF_SEEDS + "queries<R>(weights, head, t0, s0);\n        real x[R][OTHER];",
         "attention_forward.*(reads shared memory that was not written|races: reads what).*dynamic shared.*tiles.cuh"),
        (READY + "add_products(sum, weights, values); ", "add_products(sum, weights, values); ",
         "attention_forward.*(reads shared memory that was not written|races: reads what).*dynamic shared.*tiles.cuh"),
        ("add_products(sum, weights, values);                             // (3)\n        __syncthreads();",
         "add_products(sum, weights, values);",
         "attention_forward.*races: writes what another thread read.*dynamic shared.*tiles.cuh"),
        ("s - S <= t - T", "s <= t", DIFFERS),
        ("t < T && s < S &&", "t < T &&", "attention_forward.*reads out of bounds.*argument 3.*attention.cu|differs"),
        ("mask[(long long)b * S + s]", "mask[s]", DIFFERS),
        ("stride((long long)H * D)", "stride(D)", "attention_forward.*(another block|out of bounds)|differs"),
        ("sum[i][j] *= rescale;", ";", DIFFERS),
        ("total[i] *= rescale;", "", DIFFERS),
        ("total[i] = total[i] == 0 ? 1 : total[i];", "", DIFFERS),
        ("if (threadIdx.x % 8 == 0 && t < T)\n            l[", "if (t < T)\n            l[",
         "attention_forward.*races: writes what another thread wrote.*argument 10.*attention.cu"),
        ("QUERIES)) : S;\n    real m[R]", "1)) : S;\n    real m[R]", DIFFERS),
        # dropout
        ("s0 / 4 + x % (2 * OTHER)", "s0 / 4", DIFFERS),
        ("first + other_row(j) / 4", "other_row(j) / 4", DIFFERS),
        ("other_row(y % OTHER)", "other_row(0)", DIFFERS),
        ("of_keys<R>(weights, head, s0, t0);", "of_keys<R>(weights, head, t0, s0);", DIFFERS),
        # the backward pass
        ("l_of[i] = t < T ? l[head.number * T + t] : 0;", "l_of[i] = l[head.number * T + t];",
         "attention_backward_queries.*reads out of bounds.*argument 11.*attention.cu"),
        ("c_of[i] = over_eight<Sum>(c_of[i]);", "", DIFFERS),
        (" - c_of[i])", ")", DIFFERS),
        ("(dp[i][j] * M - c_of) * scale", "(dp[i][j] - c_of) * scale", DIFFERS),
        ("(dp[i][j] * M - c_of) * scale", "(dp[i][j] * M - c_of)", DIFFERS),
        ("max(0, T - S + s0)", "s0", DIFFERS),
        ("*dxs = weights + KEYS * ROW_OF_WEIGHTS", "*dxs = weights", DIFFERS),
        (THERE + IF_SEEDS + "keys", IF_SEEDS + "keys",
         "attention_backward_keys.*(reads shared memory that was not written|races: reads what).*tiles.cuh"),
        (READY + "add_products(sum_v,", "add_products(sum_v,",
         "attention_backward_keys.*(reads shared memory that was not written|races: reads what).*tiles.cuh"),
        ("add_products(sum_k, dxs, queries);                              // (8)\n        __syncthreads();",
         "add_products(sum_k, dxs, queries);",
         "attention_backward_keys.*races: writes what another thread read.*dynamic shared.*tiles.cuh"),
    ],
    "adamw": [
        ("    if (p >= P)\n        return;\n", "", "adamw_step.*reads out of bounds.*byte .* of argument 1.*adamw.cu:"),
        ("p >= P", "p > P", "adamw_step.*reads out of bounds.*adamw.cu:"),
        ("g * g - v[p]", "g - v[p]", DIFFERS),
        ("+ eps);", ");", DIFFERS),
        ("parts[blockIdx.x] = sum;", "parts[0] += sum;", "sums_of_squares.*races with another block.*argument 1"),
        ("sum = over_block<Sum>(sum);", "", DIFFERS),
        ("(long long)gridDim.x * blockDim.x)", "blockDim.x)", DIFFERS),
        ("blockIdx.x * blockDim.x + threadIdx.x", "blockIdx.x * (blockDim.x - 1) + threadIdx.x",
         "adamw_step.*races with another block"),
    ],
    "rms_norm": [
        ("if (dw)\n", "", "rms_norm_backward.*no array of this launch|rms_norm_backward.*out of bounds.*rms_norm.cu"),
        ("(w ? w[c] : 1);", "w[c];", "rms_norm_forward.*reads out of bounds.*rms_norm.cu"),
        ("/ C + eps", "+ eps", DIFFERS),
        ("const real mean = over_block<Sum>(sum) / C;", "const real mean = sum / C;", DIFFERS),
        ("own = (long long)blockIdx.x * C;", "own = threadIdx.x / 32 * C;", "rms_norm_backward.*races"),
        ("if (threadIdx.x == 0)\n        r[row]", "if (threadIdx.x <= 1)\n        r[row]",
         "races: writes what.*argument 4"),
        ("const long long row = blockIdx.x, begin", "const long long row = blockIdx.x + 1, begin",
         "rms_norm_forward.*reads out of bounds"),
    ],
    "softmax": [
        # softmax.cuh
        ("sum = sum * exp(m - x[s]) + 1;", "sum = sum + 1;", DIFFERS),
        ("over_block<Sum>(sum * exp(m - largest))", "over_block<Sum>(sum)", DIFFERS),
        ("a > b ? a : b", "a < b ? a : b", DIFFERS),
        ("s < S; s += blockDim.x)\n        if", "s <= S; s += blockDim.x)\n        if",
         "reads out of bounds.*softmax.cuh"),
        # softmax.cu
        ("real l = e.m + log(e.sum)", "real l = log(e.sum)", DIFFERS),
        ("- exp(y[begin + s]) * sum", "- exp(y[begin + s])", DIFFERS),
        ("p[begin + s] * dp[begin + s];\n    sum = over_block<Sum>(sum);", "p[begin + s] * dp[begin + s];", DIFFERS),
    ],
    "cross_entropy": [
        ("        if (threadIdx.x == 0)\n            losses[row] = 0;", "        losses[row] = 0;",
         "cross_entropy_rows.*races: writes what.*argument 4.*cross_entropy.cu"),
        ("target < 0 || target >= V ? not_a_number() : ", "", "cross_entropy_rows.*reads out of bounds.*argument 0|differs"),
        ("counted = over_block<Sum>(counted);", "", DIFFERS),
        ("row < N; row += blockDim.x", "row < N; row += 1", DIFFERS),
        ("t[row] != ignored;", "1;", DIFFERS),
        ("- (v == target)", "", DIFFERS),
        ("        return;\n    }\n    const Exponentials", "    }\n    if (threadIdx.x >= V) return;\n    const Exponentials",
         "cross_entropy_rows.*waits for lane .* which has ended|cross_entropy_rows.*of the block never reach"),
    ],
    "embedding": [
        ("        __syncthreads();                                                // all warps have", "//",
         "embedding_backward.*(races: reads what|reads shared memory that was not written).*embedding.cu"),
        ("        __syncthreads();                                                // all are read", "//",
         "embedding_backward.*races: writes what another thread read.*embedding.cu"),
        ("n < end && c < C", "n < end", "embedding_backward.*reads out of bounds.*argument 0.*embedding.cu"),
        ("warp == 0 && c < C", "warp == 0", "embedding_backward.*out of bounds|races with another block"),
        ("warp == 0 && c < C", "c < C", "embedding_backward.*races: writes what another thread wrote.*argument 3"),
        ("dy[order[n] * C + c]", "dy[n * C + c]", DIFFERS),
        ("sorted, N, v + 1)", "sorted, N, v + 2)", DIFFERS),
        ("int other = 1;", "int other = 2;", DIFFERS),
        ("high = N;", "high = N + 1;", "embedding_backward.*out of bounds.*argument (0|1|2)"),
        ("strip += 32 * gridDim.y", "strip += 32 * gridDim.y + 32", DIFFERS),
        ("id < 0 || id >= V ? not_a_number() : ", "", "embedding_forward.*reads out of bounds.*argument 0"),
    ],
    "philox": [
        ("    if (i >= N)\n        return;\n", "", "fold_in.*reads out of bounds.*argument 0.*philox.cu"),
        ("round < 10", "round < 9", DIFFERS),
        ("^ c3 ^ k1", "^ c3 ^ k0", DIFFERS),
        ("k1 += 0xBB67AE85u;", "", DIFFERS),
    ],
    "dropout": [
        ("    if (row >= N)\n        return;\n", "", "dropout.*reads out of bounds.*dropout.cu"),
        (" && 4 * block + j < C", "", "dropout.*(races with another|races: writes what|out of bounds).*dropout.cu"),
        ("row % rows, block", "row, block", DIFFERS),
        ("seeds[row / rows]", "seeds[row % rows]", "dropout.*reads out of bounds.*argument 1|differs"),
        ("? scale : 0", "? 1 : 0", DIFFERS),
    ],
    "rotary": [
        ("    if (i >= N)\n        return;\n", "", "turn.*reads out of bounds.*rotary.cu"),
        ("i / half / H % T", "i / half % T", DIFFERS),
        ("i / half / H % T", "i / half / H", "turn.*reads out of bounds.*argument (1|2)|differs"),
        ("sign * sin", "sin", DIFFERS),
        ("- x[first] * s", "+ x[first] * s", DIFFERS),
    ],
    "gelu": [
        ("    if (i < N)\n        y[i]", "    y[i]", "gelu_forward.*out of bounds.*gelu.cu"),
        ("    if (i < N)\n        dx[i]", "    if (i <= N)\n        dx[i]", "gelu_backward.*out of bounds.*gelu.cu"),
        ("+ x * slope", "", DIFFERS),
        ("0.134145", "0.044715", DIFFERS),
        ("0.3989422804014327", "0.7978845608028654", DIFFERS),
    ],
    "mlp": [
        ("f < F;", "f <= F;", "mlp_forward.*(out of bounds|races).*mlp.cu"),
        ("(b ? b[f] : 0)", "b[f]", "mlp_forward.*reads out of bounds.*mlp.cu"),
        ("        h[begin + f] = x;\n", "", DIFFERS),
        ("begin = (long long)blockIdx.x * F", "begin = blockIdx.x * (F - 1)", "mlp_forward.*races with another block"),
        ("    if (i >= N)\n        return;\n", "", "mlp_backward.*reads out of bounds.*argument 0.*mlp.cu"),
        ("da[i] *=", "da[i] =", DIFFERS),
        ("x < 0 ? 0 : 2 * x", "x < 0 ? 0 : x", DIFFERS),
    ],
    "relu_squared": [
        ("dy[i] * 2 * x[i]", "dy[i] * x[i]", DIFFERS),
        ("    if (i < N)\n        y[i]", "    if (i <= N)\n        y[i]", "relu_squared_forward.*out of bounds"),
    ],
    "elementwise": [
        ("    if (i < N)\n        y[i] = tanh", "    y[i] = tanh", "tanh_forward.*reads out of bounds.*elementwise.cu"),
        ("dy[i] * y[i] * (1", "dy[i] * (1", DIFFERS),
        ("(1 - y[i] * y[i])", "(1 - y[i])", DIFFERS),
        ("x[i] > 0 ? dy[i] : 0", "dy[i]", DIFFERS),
        ("exp(-x[i])", "exp(x[i])", DIFFERS),
    ],
}


def said_of(emulated, chapter):
    """What the checker or the comparison says of a chapter's kernels, or None."""
    try:
        check_chapter(emulated, chapter)
    except EmulatorError as error:
        return str(error)
    except AssertionError:
        return DIFFERS
    return None


@pytest.mark.parametrize("chapter", BROKEN)
def test_nothing_is_said_of_the_true_text(emulated, chapter):
    assert said_of(emulated, chapter) is None


@pytest.mark.parametrize("chapter, text, replacement, said", [
    pytest.param(chapter, *row, id=f"{chapter}-{i}") for chapter in BROKEN for i, row in enumerate(BROKEN[chapter])])
def test_a_broken_text_is_reported(emulated, monkeypatch, chapter, text, replacement, said):
    source = launch.source
    times = source(chapter, "float").count(text)
    assert times == 1, f"{text!r} stands {times} times in {chapter}.cu"
    monkeypatch.setattr(launch, "source", lambda *which: source(*which).replace(text, replacement))
    report = said_of(emulated, chapter)
    assert report is not None and re.search(said, report), report
    if report != DIFFERS:
        assert re.search(r"^\w+, block \(\d+, 0, 0\), thread \(\d+, 0, 0\): ", report)
        assert re.search(r"(\.cuh?:|line )\d+", report)


def test_every_text_is_broken_somewhere():
    assert set(BROKEN) == set(kernels.cuda.names())


# What the kernels of today do not contain, or could not show

def run(text, *arrays, threads=32, blocks=1, order="forward"):
    """Run kernel f of a text on arrays of float32."""
    module = emulator.Module("f", f"typedef float real;\n#line 1 \"f.cu\"\n{text}")
    buffers = [(i, x.ctypes.data, x.nbytes, x.itemsize) for i, x in enumerate(arrays)]
    cells = [np.array([x.ctypes.data], np.uint64) for x in arrays]
    module.launch("f", (blocks, 1, 1), (threads, 1, 1), cells, buffers, order=order)


F = 'extern "C" __global__ void f(float *x)\n{ int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x; '
WRONG = {                                           # what is wrong: (text, what is said)
    "a misaligned vector": ("float4 *v = (float4 *)(x + 1); v[0].x = 1; }", "an address is misaligned, at f.cu:2"),
    "an index that overflows": ("int big = 70000 + t; x[big * big > 0 ? 0 : 1] = 1; }",
                                "an integer overflows, at f.cu:2"),
    "a division by 0": ("x[i] = 1 / (t / 32); }", "an integer is divided by 0, at f.cu:2"),
    "a shift too far": ("x[i] = 1 << (32 + t); }", "a shift is too far, at f.cu:2"),
    "a 2-d index": ("__shared__ float s[4][8]; s[t / 8][t % 8 + 1] = 1; __syncthreads(); x[i] = s[0][1]; }",
                    "an index is outside its array, at f.cu:2"),
    "a neighbour's number": ("x[i] = i; x[i] += x[(i + 1) % 32]; }", "races: (reads|writes) what another thread"),
    "a number that two write": ("x[0] = 1; }", "races: writes what another thread wrote"),
    "__syncwarp forgotten": ("__shared__ float s[32]; s[t] = t; x[i] = s[31 - t]; }",
                             "reads shared memory that was not written|races: reads what another thread wrote"),
    "a shuffle for a barrier": ("__shared__ float s[32]; s[t] = t; float v = __shfl_xor_sync(~0u, 1.f, 1); "
                                "x[i] = s[31 - t] * v; }", "races: reads what another thread wrote"),
    "__syncwarp for __syncthreads": ("__shared__ float s[64]; s[t] = t; __syncwarp(); x[i] = s[63 - t]; }",
                                     "reads shared memory that was not written|races: reads what another thread wrote"),
    "a mask without the caller": ("x[i] = __shfl_xor_sync(1u, 1.f, 0); }",
                                  "line 2: lane 1 is not in its own mask 00000001"),
    "a shuffle from outside": ("if (t < 16) x[i] = __shfl_down_sync(0xffffu, 1.f, 8); }",
                               "line 2: a shuffle reads lane 16, which is not in its mask 0000ffff"),
    "a barrier for some": ("if (t < 32) __syncthreads(); x[i] = 1; }",
                           "line 2: __syncthreads, which 32 threads of the block never reach"),
    "barriers that differ": ("if (t < 32) __syncthreads();\nelse __syncthreads();\nx[i] = 1; }",
                             "line .: __syncthreads, while others of the block wait at line ."),
    "a lane elsewhere": ("if (t == 3) __syncthreads(); else __syncwarp(); x[i] = 1; }",
                         "line 2: waits for lanes ffffffff"),
    "a loop without an end": ("for (volatile int n = 0; n >= 0;) x[i] = n; }", "never ends, it seems"),
    "atomic and not": ("if (t) atomicAdd(x, 1.f); else x[0] = 1; }", "races: writes what another thread (wrote|read)"),
    "another's local array": ("float own[4] = {1, 2, 3, 4}; __shared__ float *p; if (t == 0) p = own; __syncthreads(); "
                              "x[i] = p[t % 4]; }", "reads out of bounds"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(emulated, what):
    text, said = WRONG[what]
    with pytest.raises(EmulatorError, match=f"^f, block .*thread .*: .*({said})"):
        run(F + text, np.zeros(64, np.float32), threads=64)


@pytest.mark.parametrize("order", emulator.ORDERS)
@pytest.mark.parametrize("text, expected", [
    ("x[i] = __shfl_up_sync(~0u, (float)i, 2); }", [t - 2 if t % 32 > 1 else t for t in range(64)]),
    ("x[i] = __shfl_down_sync(~0u, (float)i, 2); }", [t + 2 if t % 32 < 30 else t for t in range(64)]),
    ("x[i] = __shfl_sync(~0u, (float)i, 5); }", [t // 32 * 32 + 5 for t in range(64)]),
    ("x[i] = __shfl_xor_sync(~0u, (double)i, 7); }", [t ^ 7 for t in range(64)]),
    ("atomicAdd(&x[t % 2], 1.f); }", [32, 32] + [0] * 62),
    ("__shared__ float s[64]; s[t] = t; __syncthreads(); x[i] = s[63 - t]; }", list(range(64))[::-1]),
    ("__shared__ float s[64]; s[t] = t; __syncwarp(); x[i] = s[t ^ 1]; }", [t ^ 1 for t in range(64)]),
    ("float own[8]; for (int j = 0; j < 8; j++) own[j] = t * j; x[i] = own[t % 8]; }", [t * (t % 8) for t in range(64)]),
    ("if (t < 16) x[i] = __shfl_xor_sync(0xffffu, (float)i, 1); }", [t ^ 1 if t < 16 else 0 for t in range(64)]),
])
def test_what_is_right_is_computed_in_every_order_and_not_complained_about(emulated, text, expected, order):
    x = np.zeros(64, np.float32)
    run(F + text, x, threads=64, order=order)
    np.testing.assert_array_equal(x, expected)


def test_the_stand_in_is_what_stands_in(emulated):
    import cupy
    assert cupy is stand_in
