"Toy unit functions that worker processes can import; each call adds a line to $UNITS_LOG."
import os
import signal
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from signbook.experiment import Made, compute
from signbook.training import FitConfig, fit


@dataclass(frozen=True)
class Toy:
    x: float = 1.
    seconds: float = 0.
    trouble: str = ''


@dataclass(frozen=True)
class Net:
    width: int = 8
    fit: FitConfig = field(default_factory=lambda: FitConfig(epochs=3, batch_size=8, precision='fp32'))


def note(*words):
    with open(os.environ['UNITS_LOG'], 'a') as f: f.write(' '.join(map(str, words)) + '\n')


def toy(config, seed, device):
    note('start', config.x, seed, os.getpid())
    time.sleep(config.seconds)
    if config.trouble == 'error': raise ValueError('no such gloss')
    if config.trouble == 'nan': return {'y': [1., float('nan')]}
    if config.trouble == 'list': return [1]
    if config.trouble == 'exit': raise SystemExit(3)
    if config.trouble == 'memory': return {'y': len(bytearray(2**60))}
    if config.trouble == 'killed': os.kill(os.getpid(), signal.SIGKILL)
    note('end', config.x, seed, os.getpid())
    return {'y': config.x * 10 + seed, 'draw': np.random.random() + torch.rand(()).item()}


def base(config, seed, device):
    note('base', config.x, seed)
    time.sleep(config.seconds)
    if config.trouble: raise ValueError('no base')
    return Made({'x': config.x}, {'w': torch.full((3,), config.x, dtype=torch.float64), 'b': np.arange(4, dtype=np.uint8)})


def built(config, seed, device):
    before = torch.rand(()).item()
    t = compute(base, Toy(config.x, config.seconds, config.trouble), None).tensors()
    return {'sum': float(t['w'].sum()) + int(t['b'].sum()) + seed, 'draw': before + torch.rand(()).item()}


def needs(config): return [(base, Toy(config.x, config.seconds, config.trouble), None)]


def big(config, seed, device): return Made({'n': seed}, {'w': np.ones(75_000)})


def threads(config, seed, device): return {'torch': torch.get_num_threads(), 'omp': os.environ.get('OMP_NUM_THREADS'), 'device': device}


def train(config, seed, device):
    g = torch.Generator().manual_seed(7)
    x = torch.randn(64, 4, generator=g)
    y = x.sin().sum(1, keepdim=True)
    model = torch.nn.Sequential(torch.nn.Linear(4, config.width), torch.nn.GELU(), torch.nn.Linear(config.width, 1))
    done = fit(model, lambda m, b: (m(b[0]) - b[1]).pow(2).mean(), lambda i: (x[i], y[i]), len(x), config.fit, seed=seed, device=device)
    return {'losses': done.step_losses, 'weights': [p.sum().item() for p in model.parameters()]}
