import random

import numpy as np
import pytest
import torch

from headstart.seeds import derive_seed, reseed


def test_torch_draws_what_it_would_with_its_own_function():
    torch.manual_seed(5)
    expected = torch.rand(3)
    reseed(5)
    assert torch.equal(torch.rand(3), expected)


def test_numpy_and_python_draw_the_same_again():
    draws = []
    for _ in range(2):
        reseed(derive_seed(0, 1, 2))
        draws.append((np.random.rand(), random.random()))
    assert draws[0] == draws[1]


@pytest.mark.gpu
def test_the_gpu_draws_the_same_again():
    torch.cuda.init()
    draws = []
    for _ in range(2):
        reseed(7)
        draws.append(torch.rand(3, device="cuda"))
    assert torch.equal(*draws)
