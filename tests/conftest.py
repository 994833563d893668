"""What all tests share: one repeatable profile of hypothesis, and a fixture that runs a test on every backend."""
import pytest
from hypothesis import HealthCheck, settings

from minigpt import kernels, use

settings.register_profile(
    "repeatable", deadline=None, derandomize=True, max_examples=25, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture])        # `backend` is the same for all examples
settings.load_profile("repeatable")


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    """Runs the test once within use("reference") and once within use("cpu"), if kernels were compiled."""
    if request.param == "cpu" and not kernels.cpu.available():
        pytest.skip(f"no compiled kernels: {kernels.cpu.why_not()}")
    with use(request.param):
        yield request.param
