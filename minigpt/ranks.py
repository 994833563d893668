"""Ranks: one program as several processes, on one machine or on many, that make each step together.

    mpiexec -n 4 python examples/train_shakespeare.py

starts the same program four times. Each process is a rank and knows its number; all of them read the same lines of the
same program, and meet wherever one of the methods below is called: every rank must make the same calls in the same
order, or they wait for one another for ever. What they exchange goes through MPI, by the package mpi4py.

A rank is a worker of workers (parallel.py): the ranks share the sequences of a batch, and one sum of gradients a step
is all that they need of each other; Muon (optim.py) has them share its directions by another. Only the first rank,
number 0, prints and writes files.

Where the program was started alone, `Ranks` is all there is of this, and mpi4py is not even imported.
"""
import functools
import io
import os
import sys
import time
import traceback

from .settings import UserError, program as program_of_one

SIZE_AND_RANK = [("PMI_SIZE", "PMI_RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
                 ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK")]    # what MPICH (and its kin), Open MPI, MVAPICH tell us
PATIENCE = 2.0                      # seconds that a rank that failed waits for the others to fail, too


class Ranks:
    """A program that was started alone: one rank, which is the first. Use it as a context, like MPIRanks below."""
    size, rank = 1, 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def sum(self, array):
        """Make `array`, of equal shape on all ranks, the sum of them, in place: the same bits on every rank."""

    def copy(self, array):
        """Make `array` that of the first rank, in place."""

    def every(self, value):
        """[the value of the first rank, of the second, ...], on every rank; for small things."""
        return [value]

    def first(self, function, *arguments):
        """function(*arguments), called on the first rank alone; every rank gets its result, or raises its UserError."""
        result = error = None
        if self.rank == 0:
            try:
                result = function(*arguments)
            except UserError as caught:
                error = caught
        result, error = self.every((result, error))[0]
        if error is not None:
            raise error
        return result


ALONE = Ranks()


class MPIRanks(Ranks):
    """The ranks that mpiexec started.

    As a context it sees to it that they speak with one voice and end together. What the first rank prints is seen; the
    others print to nowhere, and what they say on stderr is held back. If all fail, of a mistake that all of them met,
    the first one tells it. A rank that fails alone tells it itself, and ends the others, who would wait for it.
    """

    def __init__(self, MPI):
        self.comm, self.in_place = MPI.COMM_WORLD, MPI.IN_PLACE
        self.size, self.rank = self.comm.size, self.comm.rank
        self.farewell = self.comm.Dup()                     # its messages can't be taken for those of a step

    def sum(self, array):
        self.comm.Allreduce(self.in_place, array)

    def copy(self, array):
        self.comm.Bcast(array)

    def every(self, value):
        return self.comm.allgather(value)

    def __enter__(self):
        self.streams = sys.stdout, sys.stderr
        if self.rank:
            sys.stdout, sys.stderr = open(os.devnull, "w", encoding="utf-8"), io.StringIO()
        return self

    def __exit__(self, kind, error, trace):
        code = error.code if kind is SystemExit else int(kind is not None)      # None or 0: all went well
        failures = bytearray(self.size)
        meeting = self.farewell.Iallgather(bytes([bool(code)]), failures)
        patience = time.monotonic() + (PATIENCE if code else float("inf"))
        while not meeting.Test():                           # sleeping: the first rank may need the cores for long
            if time.monotonic() > patience:
                self.tell(error)
                self.comm.Abort(code if isinstance(code, int) else 1)
            time.sleep(0.01)
        if self.rank and code:
            if not failures[0]:
                self.tell(error)
            sys.stderr = io.StringIO()                      # the first rank has told it
        else:
            sys.stdout, sys.stderr = self.streams

    def tell(self, error):
        """Say on the real stderr what was held back, and why this rank fails."""
        if not isinstance(error, SystemExit):               # whoever raised that has said why
            traceback.print_exception(error)
        if self.rank:
            self.streams[1].write(sys.stderr.getvalue())
        self.streams[1].flush()
        time.sleep(0.5)                                     # mpiexec passes it on, before it hears of the end


def launched():
    """(size, rank) as the launcher of this process says in its environment; (1, 0) where there was none."""
    for size, rank in SIZE_AND_RANK:
        if size in os.environ and rank in os.environ:
            return int(os.environ[size]), int(os.environ[rank])
    return 1, 0


def world():
    """The Ranks that this process is one of."""
    size, _ = launched()
    if size == 1:
        return ALONE
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):                     # RuntimeError: mpi4py without an MPI library
        raise UserError(f"mpiexec started {size} processes, which need mpi4py to work together: pip install mpi4py "
                        "mpich, or start without mpiexec") from None
    if MPI.COMM_WORLD.size != size:
        raise UserError(f"mpiexec started {size} processes, but mpi4py works with another MPI library than this mpiexec, "
                        f"{MPI.get_vendor()[0]}, and sees {MPI.COMM_WORLD.size} of them: start with the mpiexec of that one")
    return MPIRanks(MPI)


def program(main, Settings):
    """settings.program(main, Settings) on every rank, for a main(settings, ranks)."""
    try:
        ranks = world()                                     # before anything can fail: MPI waits for all to be there
    except UserError as error:
        if launched()[1] == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    with ranks:
        program_of_one(functools.wraps(main)(functools.partial(main, ranks=ranks)), Settings)
