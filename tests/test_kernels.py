"""Compiled kernels: each one that is in ext/cpu is built, loaded and used under its name, or it is an error."""
import importlib
import importlib.util
import inspect
import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from minigpt import Tensor, kernels, op, ops, use

SOURCES = Path(__file__).parents[1] / "ext" / "cpu"
NAMES = sorted(path.stem for path in SOURCES.glob("*.pyx"))
SWITCHED_OFF = os.environ.get("MINIGPT_KERNELS") == "none"
in_a_checkout = pytest.mark.skipif(not NAMES, reason=f"no kernel sources at {SOURCES}: not a checkout")
compiled = pytest.mark.skipif(SWITCHED_OFF, reason="MINIGPT_KERNELS=none")
each_kernel = pytest.mark.parametrize("name", [name for name in NAMES if name not in kernels.cpu.NO_CHAPTERS])


@in_a_checkout
@pytest.mark.skipif(not SWITCHED_OFF, reason="MINIGPT_KERNELS is not none")
def test_no_kernel_is_used_where_they_are_switched_off():
    assert not kernels.cpu.available()
    assert {backend for run in op.ALL.values() for backend in run.pairs} == {"reference"}


@in_a_checkout
@compiled
def test_every_kernel_source_was_built():
    """Without a compiler minigpt works too, but then say so: MINIGPT_KERNELS=none."""
    assert kernels.cpu.available(), kernels.cpu.why_not()
    assert set(kernels.cpu.names()) == set(NAMES) - set(kernels.cpu.NO_CHAPTERS)


def chapter_of(name):
    """The module that a kernel is the compiled version of: a chapter of ops, or a tokenizer."""
    package = next(package for package in ("ops", "tokenizers") if importlib.util.find_spec(f"minigpt.{package}.{name}"))
    return importlib.import_module(f"minigpt.{package}.{name}")


@in_a_checkout
@compiled
@each_kernel
def test_every_kernel_is_loaded_beside_a_chapter_of_its_name(name):
    module = kernels.load("cpu", name)
    assert module.__name__ == f"minigpt.kernels.cpu.{name}"
    assert chapter_of(name)


def public_functions(module):
    """The functions that a compiled module defines for others."""
    return {name: f for name, f in vars(module).items()
            if callable(f) and not name.startswith("_") and getattr(f, "__module__", None) == module.__name__}


@in_a_checkout
@compiled
@each_kernel
def test_every_function_of_a_kernel_that_is_named_like_the_chapters_is_used(name):
    """A misspelt kernel would be a silent slow path."""
    chapter, functions = chapter_of(name), public_functions(kernels.load("cpu", name))
    used = 0
    for function_name, function in functions.items():
        operation, _, which = function_name.rpartition("_")
        if which in ("forward", "backward"):
            assert operation in op.ALL, f"{name}.pyx defines {function_name}, but there is no operation {operation}"
            assert op.ALL[operation].pairs["cpu"][which == "backward"] is function
            used += 1
        elif hasattr(getattr(chapter, function_name, None), "versions"):
            assert getattr(chapter, function_name).versions["cpu"] is function
            used += 1
    assert used, f"nothing that {name}.pyx defines is used: {sorted(functions)}"


@in_a_checkout
@compiled
@pytest.mark.parametrize("name", [name for name in op.ALL if "cpu" in op.ALL[name].pairs])
def test_a_kernel_takes_the_arguments_of_the_reference_with_the_same_defaults(name):
    for reference, fast in zip(op.ALL[name].pairs["reference"], op.ALL[name].pairs["cpu"], strict=True):
        def arguments(function):
            return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

        assert arguments(fast) == arguments(reference)


# Which backend runs

@pytest.fixture
def calls(monkeypatch):
    """The backends that relu and fold_in ran on, in order; both have a pretended kernel."""
    ran = []

    def logged(backend, function):
        return lambda *arrays, **constants: ran.append(backend) or function(*arrays, **constants)

    (forward, backward), fold_in = ops.relu.pairs["reference"], ops.fold_in.versions["reference"]
    for backend in "reference", "cpu":
        monkeypatch.setitem(ops.relu.pairs, backend, (logged(backend, forward), logged(backend, backward)))
        monkeypatch.setitem(ops.fold_in.versions, backend, logged(backend, fold_in))
    monkeypatch.setattr(kernels.cpu, "available", lambda: True)
    return ran


def test_the_compiled_kernel_runs_where_there_is_one(calls):
    ops.relu(np.ones(3))
    ops.fold_in(np.arange(3, dtype=np.uint64), n=1)
    assert calls == ["cpu", "cpu"]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_use_forces_a_backend_for_its_block_and_for_both_passes(calls, backend):
    with use(backend):
        y = ops.relu(x := Tensor(np.ones(3), requires_grad=True))
        ops.fold_in(np.arange(3, dtype=np.uint64), n=1)
    y.backward(np.ones(3))
    assert calls == [backend] * 3 and x.grad is not None


def test_use_ends_with_its_block(calls):
    with pytest.raises(KeyError), use("reference"):
        with use("cpu"):
            ops.relu(np.ones(3))
        ops.relu(np.ones(3))
        raise KeyError
    ops.relu(np.ones(3))
    assert calls == ["cpu", "reference", "cpu"]


def test_an_operation_without_a_kernel_runs_the_reference_within_use_cpu(monkeypatch):
    monkeypatch.setattr(kernels.cpu, "available", lambda: True)
    monkeypatch.delitem(ops.relu.pairs, "cpu", raising=False)
    with use("cpu"):
        np.testing.assert_array_equal(ops.relu(np.array([-1.0, 2])).data, [0, 2])


def test_use_cpu_without_kernels_is_an_error_that_says_why(monkeypatch):
    monkeypatch.setattr(kernels.cpu, "available", lambda: False)
    monkeypatch.setattr(kernels.cpu, "why_not", lambda: "the moon is full")
    with pytest.raises(RuntimeError, match="the moon is full"), use("cpu"):
        pass


def test_an_unknown_backend_is_an_error():
    with pytest.raises(ValueError, match="'gpu'.*'reference'"), use("gpu"):
        pass


# Loading

@pytest.fixture
def kernel_file(tmp_path, monkeypatch):
    """Writes a file that Python finds as minigpt.kernels.cpu.NAME."""
    monkeypatch.setattr(kernels.cpu, "available", lambda: True)
    monkeypatch.setattr(kernels.cpu, "__path__", [*kernels.cpu.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, f"minigpt.kernels.cpu.{name}", raising=False)

    yield write
    for name in set(sys.modules) & {f"minigpt.kernels.cpu.{path.stem}" for path in tmp_path.glob("*.py")}:
        del sys.modules[name]


def test_a_chapter_without_a_kernel_has_none(kernel_file):
    assert kernels.load("cpu", "astrology") is None


@pytest.mark.parametrize("text, error", [
    ("import astronomy", ImportError), ("from numpy import astronomy", ImportError), ("1 / 0", ZeroDivisionError)])
def test_a_broken_kernel_is_an_error(kernel_file, text, error):
    kernel_file("astrology", text)
    with pytest.raises(error):
        kernels.load("cpu", "astrology")


def test_a_kernel_that_is_found_becomes_the_compiled_version(kernel_file):
    """The fake kernel has the pair of one operation of its chapter, and one half of another's: that is no pair."""
    kernel_file("astrology", "def rise_forward(x): ...\ndef rise_backward(dy, saved): ...\ndef set_forward(x): ...")

    def function(name):
        return types.SimpleNamespace(__name__=name, __module__="minigpt.ops.astrology")

    assert set(op.versions(function("rise_forward"), function("rise_backward"))) == {"reference", "cpu"}
    assert set(op.versions(function("set_forward"), function("set_backward"))) == {"reference"}


def test_no_kernel_is_loaded_where_they_can_not_run(kernel_file, monkeypatch):
    kernel_file("astrology", "")
    monkeypatch.setattr(kernels.cpu, "available", lambda: False)
    assert kernels.load("cpu", "astrology") is None


@pytest.mark.parametrize("choice, reason", [("none", "MINIGPT_KERNELS=none"), ("fast", "'fast'.*'compiled' or 'none'")])
def test_the_reason_why_there_are_no_kernels_is_a_clause(choice, reason, monkeypatch):
    monkeypatch.setenv("MINIGPT_KERNELS", choice)
    kernels.cpu.why_not.cache_clear()
    try:
        assert not kernels.cpu.available()
        assert re.search(reason, kernels.cpu.status())
    finally:
        monkeypatch.undo()
        kernels.cpu.why_not.cache_clear()
