"""Tensor: an array that remembers how it was made, so that it can be differentiated.

A computation builds a graph. If z = x * y and w = z + x, then w leads to the node of +, which leads to the node of *
and to x. To differentiate a scalar loss by everything that it was made from, walk that graph from the loss to the
leaves. A node that receives dL/dy hands each of its inputs its own share of it, by the chain rule:

    (1)  dL/dx  =  the sum, over every operation that used x, of  (dL/dy of that operation) * (its dy/dx)

"The sum over every operation that used x" is why the walk needs an order: a node's gradient is complete only when
all operations that used its output have been walked. Take  b = a + a;  c = b + b.  Walking c, then b twice (once for
each of its uses) would hand a the first half of b's gradient before the second half arrived, and once more after.
A topological order, every node after all of its users, walks b once, with its whole gradient.

This file knows no operation. An operation makes a Node (see op.py) that holds

    backward   (dy, saved) -> one gradient for each input, or None where there is none to give
    saved      what the forward pass kept for it: the only memory that the graph holds on to
    parents    where each of these gradients goes: to a Node, to a leaf Tensor, or nowhere (None)

The graph is used up as it is walked: each node drops its arrays the moment it is done, so that memory falls during
the backward pass as it rose during the forward pass.
"""
import contextvars
from contextlib import contextmanager

import numpy as np

recording = contextvars.ContextVar("recording", default=True)


@contextmanager
def no_grad():
    """Inside `with no_grad():` no graph is built, so nothing is kept for a backward pass.

    It holds for the code run inside the block only (a ContextVar): not for other threads.
    """
    token = recording.set(False)
    try:
        yield
    finally:
        recording.reset(token)


class Tensor:
    """An array (`data`, a NumPy or CuPy array in C order) and, if it may be differentiated by, its gradient (`grad`).

    A leaf with requires_grad=True collects its gradient in `grad`, an array of the shape and dtype of `data`: in
    place, where `grad` is set beforehand (a view into a flat block, say), in an array of its own otherwise.
    """
    __slots__ = "data", "grad", "requires_grad", "node", "__weakref__"
    __array_ufunc__ = None                          # array + tensor is the tensor's business, not NumPy's

    def __init__(self, data, requires_grad=False, node=None):
        self.data = contiguous(data if hasattr(data, "dtype") else np.asarray(data))
        self.grad = None
        self.node = node
        self.requires_grad = requires_grad or node is not None
        if self.requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"only an array of floats can have a gradient, not one of {self.data.dtype}")

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)

    def __len__(self):
        return len(self.data)

    def __repr__(self):
        return f"Tensor({self.data!r}{', requires_grad=True' if self.requires_grad else ''})"

    def item(self):
        """The one number of a tensor that holds one, as a Python number."""
        return self.data.item()

    def accumulate(self, gradient):
        """Add `gradient` to `grad`, in place, so that a view stays a view."""
        if self.grad is None:
            self.grad = np.zeros_like(self.data)    # its own array: an operation may hand one to two of its inputs
        self.grad += gradient

    def backward(self, dy=None):
        """Add to the `grad` of every leaf that this tensor was made from its derivative by that leaf.

        dy: the gradient of the final scalar by this tensor, an array of its shape; 1 where this tensor is that scalar.
        A graph can be walked once. Raises RuntimeError where part of it was walked before.
        """
        if not self.requires_grad:
            raise RuntimeError("nothing to differentiate: no input of this tensor requires a gradient")
        if dy is None and self.size != 1:
            raise ValueError(f"a tensor of shape {self.shape} is no scalar: backward(dy) needs the gradient by it")
        dy = np.ones_like(self.data) if dy is None else dy
        if self.node is None:
            check_shape(dy, self.shape, "a tensor")
            self.accumulate(dy)
        else:
            walk(self.node, dy)


class Node:
    """One application of an operation: what the walk needs, and nothing else."""
    __slots__ = "backward", "saved", "parents", "shape", "dtype"

    def __init__(self, backward, saved, parents, output):
        self.backward, self.saved, self.parents = backward, saved, parents
        self.shape, self.dtype = output.shape, output.dtype

    def apply(self, dy):
        """The gradients of the inputs, each with its parent; afterwards the node is spent and holds no array."""
        backward, saved, parents = self.backward, self.saved, self.parents
        self.backward = self.saved = self.parents = None
        if dy is None:                              # nobody who used this output had a gradient to give
            return ()
        check_shape(dy, self.shape, backward.__name__)
        return zip(parents, backward(contiguous(dy.astype(self.dtype, copy=False)), saved))


def walk(root, dy):
    """Apply the chain rule (1) at every node from `root` down, each one after all of its users."""
    order = topological_order(root)
    complete = {root: dy}
    owned = set()                                   # nodes whose gradient is an array made here: safe to add in place
    while order:
        node = order.pop()                          # popped, not iterated: nothing holds a node that is done
        for parent, dx in node.apply(complete.pop(node, None)):
            if parent is None or dx is None:
                continue
            if isinstance(parent, Tensor):
                parent.accumulate(dx)
            elif parent not in complete:
                complete[parent] = dx
            elif parent in owned:
                complete[parent] += dx
            else:
                complete[parent] = complete[parent] + dx
                owned.add(parent)
        owned.discard(node)


def topological_order(root):
    """The nodes that `root` depends on, each one after its own parents, `root` last.

    Depth first with a stack of our own: Python's recursion ends at a thousand operations, a graph does not.
    """
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            if node.backward is None:
                raise RuntimeError("part of this graph was already differentiated: add the losses first, "
                                   "then call backward() once")
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents if isinstance(parent, Node))
    return order


def check_shape(dy, shape, where):
    if dy.shape != shape:
        raise ValueError(f"{where} expects a gradient of its shape {shape}, not of {dy.shape}")


def contiguous(array):
    """`array`, or a copy of it in C order (np.ascontiguousarray would turn a scalar into an array of one)."""
    if isinstance(array, np.generic):               # NumPy's own operations turn arrays of shape () into scalars
        return np.asarray(array)
    return array if array.flags.c_contiguous else array.copy(order="C")


def parents_of(inputs):
    """Where the gradient of each input goes: to its node, to the input itself if it is a leaf, or nowhere."""
    return [None if not isinstance(x, Tensor) or not x.requires_grad else x.node or x for x in inputs]


def recompute(function, *inputs):
    """function(*inputs), keeping only its inputs: the backward pass computes what is inside once more.

    "Activation checkpointing" (Chen et al. 2016, Training deep nets with sublinear memory cost): a third more
    arithmetic, and of a chain of blocks only the blocks' inputs stay in memory. `function` returns one Tensor and has
    to compute the same both times; dropout here does, since its masks follow from seeds (ops/dropout.py).
    """
    if not recording.get():
        return function(*inputs)
    context = contextvars.copy_context()            # the same kernels the second time, whoever calls backward()
    with no_grad():
        y = function(*inputs)

    def recompute_backward(dy, inputs):
        again = [Tensor(x.data, x.requires_grad) if isinstance(x, Tensor) else x for x in inputs]
        y = context.run(function, *again)
        if y.requires_grad:
            y.backward(dy)
        return [x.grad if isinstance(x, Tensor) else None for x in again]

    return Tensor(y.data, node=Node(recompute_backward, inputs, parents_of(inputs), y))
