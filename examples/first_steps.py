"""The first page: a computer learns that after 早 (1) and 上 (2) comes 好 (3). No settings, two seconds.

Find x and y such that a x + b y = c. Guess; measure by how much the guess is off (the loss); ask which way x and y
would have to move to be less off (the gradient); move them a little that way; again. Nothing else happens in a GPT.
"""
import numpy as np

from minigpt import Tensor
from minigpt.ops import linear

a, b, c = 1.0, 2.0, 3.0                                     # 早, 上, 好
x, y = Tensor(0.0, requires_grad=True), Tensor(0.0, requires_grad=True)
for step in range(12):
    loss = (a * x + b * y - c) ** 2                         # forward: how far off is the guess?
    loss.backward()                                         # backward: d loss / dx = 2 (a x + b y - c) a, and so for y
    print(f"step {step:2}   x = {x.item():.4f}   y = {y.item():.4f}   a x + b y = {a * x.item() + b * y.item():.4f}   "
          f"loss = {loss.item():.4f}   gradient = ({x.grad:.4f}, {y.grad:.4f})")
    for number in x, y:
        number.data -= 0.05 * number.grad                   # move against the gradient
        number.grad[...] = 0

print("\nThe same three lines with a whole layer: 6 inputs of 4 numbers, 20 weights and biases instead of x and y.")
rng = np.random.default_rng(0)
inputs, truth = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
w, bias = Tensor(np.zeros((4, 4)), requires_grad=True), Tensor(np.zeros(4), requires_grad=True)
for step in range(401):
    loss = ((linear(inputs, w, bias) - truth) ** 2).mean()  # forward
    loss.backward()                                         # backward
    if step % 50 == 0:
        print(f"step {step:3}   loss = {loss.item():.6f}   norm of dw = {np.linalg.norm(w.grad):.6f}")
    for parameter in w, bias:
        parameter.data -= 0.5 * parameter.grad              # move
        parameter.grad[...] = 0
print("24 numbers can't all be hit by 20 weights: the gradient is 0 where the loss is as small as it can be.")
