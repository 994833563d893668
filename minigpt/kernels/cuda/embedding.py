"""embedding on a GPU: launches ext/cuda/embedding.cu. The backward pass sorts the ids, and sums run after run."""
import numpy as np

from .launch import THREADS, WARP, launch, row_threads

GRID = 2 ** 12                                              # blocks that are surely enough for any GPU


def embedding_forward(w, ids):
    (V, C), ids = w.shape, ids.astype(np.int64, copy=False)
    y = np.empty((*ids.shape, C), w.dtype, like=w)
    launch("embedding", "embedding_forward", ids.size, row_threads(C), w, ids, y, V, C)
    return y, (w, ids)


def embedding_backward(dy, saved):
    w, ids = saved
    (V, C), ids = w.shape, ids.reshape(-1)
    order = np.argsort(ids, kind="stable")
    strips = min(-(-C // WARP), max(1, GRID // max(V, 1)))
    dw = np.empty_like(w)
    launch("embedding", "embedding_backward", (V, strips), THREADS, dy, ids[order], order, dw, ids.size, C)
    return dw, None
