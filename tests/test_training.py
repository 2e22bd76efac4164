"The training loop: arithmetic, resume after SIGKILL, determinism, several processes, selection, bad input."
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import timeit
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import signbook.training as training
from signbook.core import InputError, save_json
from signbook.training import (FitConfig, NonFinite, count_parameters, fit, gather, global_mean, learning_curve, length_batches, load_weights, lr_at, make_optimizer,
                               mask_of, meter, pad, ranks)

THREADS = {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(Path(__file__).resolve().parent.parent)}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def numbers(n=60, dtype=torch.float32):
    g = torch.Generator().manual_seed(7)
    return torch.randn(n, 5, generator=g, dtype=torch.float64).to(dtype), torch.randint(0, 3, (n,), generator=g)


class Net(nn.Module):
    "Perceptron with dropout and BatchNorm."
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(.3), nn.Linear(16, 3))

    def forward(self, x): return self.layers(x)


def plain_net(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def entropy(model, batch): return F.cross_entropy(model(batch[0]), batch[1])


def toy(n=60):
    x, y = numbers(n)
    return lambda i: (x[i], y[i])


def same(a, b): return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def rows(fit): return [{k: v for k, v in r.items() if k not in ('seconds', 'samples_per_s')} for r in fit.history]


# --- the run that is killed, in a process of its own

KILLED = FitConfig(epochs=6, batch_size=4, lr=1e-2, weight_decay=.1, warmup=1, clip=.5, ema=.9, monitor='noise', better='lower', bucket=2)


def noisy(i, pause=0.):
    x, y = numbers()
    time.sleep(pause)
    return x[i] + .1*torch.randn(len(i), 5) + np.random.normal() + random.random(), y[i]


def killed_fit(folder=None, pause=0., **kwargs):
    model = Net()
    scale = torch.tensor(0.)

    def loss(model, batch):
        value = entropy(model, batch) + .01*torch.rand(())
        return value, {'draw': torch.rand(()), 'other': random.random()}

    def dev(model):
        x, y = numbers(20)
        return {'noise': F.cross_entropy(model(x), y).item() + .01*torch.rand(()).item() + scale.item()}
    return model, fit(model, loss, lambda i: noisy(i, pause), 60, KILLED, seed=3, lengths=np.arange(60), dev=dev, folder=folder, save_every=2, **kwargs)


def script(*args, torchrun=0, **env):
    "Start this file in a process of its own."
    run = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(torchrun)] if torchrun else []
    return subprocess.Popen([sys.executable, *run, __file__, *map(str, args)], env={**os.environ, **THREADS, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def done(process):
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    return out


def step_of(folder):
    try: return training._read(folder / 'last.safetensors')[1]['step']
    except InputError: return 0


def write_killed(folder, out, pause):
    torch.set_num_threads(1)
    _, run = killed_fit(folder, pause)
    save_json(out, dict(losses=run.step_losses, rows=rows(run), best=run.best, after=[random.random(), np.random.rand(), torch.rand(()).item()]))


@pytest.fixture(scope='module')
def uninterrupted():
    torch.set_num_threads(1)
    model, run = killed_fit()
    return model, run, [random.random(), np.random.rand(), torch.rand(()).item()]


@pytest.mark.skipif(sys.platform != 'linux', reason='forks')
def test_killed_in_mid_epoch_several_times_and_resumed_to_the_bit(uninterrupted, tmp_path):
    model, whole, after = uninterrupted
    start, reached, chance = multiprocessing.get_context('fork').Process, [], random.Random(0)
    for target in (1, 10, 21, 37, 62):
        p = start(target=write_killed, args=(tmp_path, tmp_path / 'out.json', .01))
        p.start()
        while step_of(tmp_path) < target: assert p.is_alive(); time.sleep(.002)
        time.sleep(chance.random() * .03)
        p.kill(); p.join()
        assert p.exitcode == -signal.SIGKILL
        reached.append(step_of(tmp_path))
    assert reached == sorted(set(reached)) and any(s % 15 for s in reached) and reached[-1] < 90
    (tmp_path / '.last.safetensors.half.part').write_bytes(b'killed while it wrote')
    p = start(target=write_killed, args=(tmp_path, tmp_path / 'out.json', 0))
    p.start(); p.join()
    again = json.loads((tmp_path / 'out.json').read_text())
    assert again['losses'] == whole.step_losses and len(whole.step_losses) == 90
    assert again['rows'] == rows(whole) and again['best'] == list(whole.best) and again['after'] == after
    assert same(load_weights(tmp_path, Net(1)), model)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['best.safetensors', 'last.safetensors', 'out.json']


def test_another_interpreter_computes_the_same_bits(uninterrupted, tmp_path):
    done(script('whole', tmp_path / 'run', tmp_path / 'out.json'))
    found = json.loads((tmp_path / 'out.json').read_text())
    assert found['losses'] == uninterrupted[1].step_losses and found['rows'] == rows(uninterrupted[1]) and found['after'] == uninterrupted[2]


def test_killed_between_last_and_best_the_link_is_made_on_resuming(uninterrupted, tmp_path, monkeypatch):
    model, whole, _ = uninterrupted

    class Killed(BaseException): pass

    def cut(source, target): raise Killed
    for _ in range(3):
        monkeypatch.setattr(training, '_link', cut)
        with pytest.raises(Killed): killed_fit(tmp_path)
        monkeypatch.undo()
    again, resumed = killed_fit(tmp_path)
    assert resumed.step_losses == whole.step_losses and same(again, model) and resumed.best == whole.best


# --- several processes

def case_mean(dtype):
    x, y = numbers(23, dtype)
    return plain_net(0, dtype), entropy, lambda i: (x[i], y[i]), 23, FitConfig(epochs=3, batch_size=8, lr=1e-2, weight_decay=.1, clip=.5, ema=.9, warmup=1, monitor='loss on dev', better='lower'), \
        dict(dev=lambda m: {'loss on dev': entropy(m, (x, y)).item()})


def case_fewer_samples_than_processes(dtype):
    x, y = numbers(9, dtype)
    return plain_net(0, dtype), lambda m, b: entropy(m, b) + global_mean(gather(m(b[0])).square().sum() / ranks()[1], len(b[0])), lambda i: (x[i], y[i]), 9, FitConfig(epochs=3, batch_size=4, lr=1e-2), {}


class Towers(nn.Module):
    "Two encoders and a temperature; `forward` is never called."
    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(1)
        self.video, self.text, self.scale = nn.Linear(5, 6), nn.Linear(5, 6), nn.Parameter(torch.tensor(1.))
        self.to(dtype)

    def encode_video(self, x): return F.normalize(self.video(x), dim=-1)

    def encode_text(self, x): return F.normalize(self.text(x), dim=-1)


def whole_contrastive(model, batch):
    v, t = gather(model.encode_video(batch[0])), gather(model.encode_text(batch[1]))
    s = model.scale.exp() * v @ t.T
    positive = gather(batch[2])[:, None] == gather(batch[2])
    assert torch.equal(gather(batch[2] > 2), gather(batch[2]) > 2)
    return -(s.log_softmax(1)[positive].mean() + s.log_softmax(0)[positive].mean()) / 2, {'n': float(len(v))}


def own_rows_contrastive(model, batch):
    v, t = model.encode_video(batch[0]), gather(model.encode_text(batch[1]))
    labels = (gather(batch[2])[None] == batch[2][:, None]).double().argmax(1)
    return global_mean(F.cross_entropy(model.scale.exp() * v @ t.T, labels, reduction='sum'), len(v))


def pairs(loss):
    def case(dtype):
        x, _ = numbers(46, dtype)
        return Towers(dtype), loss, lambda i: (x[:23][i], x[23:][i], torch.as_tensor(i) % 20), 23, FitConfig(epochs=3, batch_size=8, lr=1e-2, optimizer='sgd', nesterov=True), {}
    return case


def case_tokens(dtype):
    x, y = numbers(60, dtype)
    starts = np.cumsum([0, *(i % 5 + 1 for i in range(20))])

    def data(i): return [x[starts[j]:starts[j+1]] for j in i], [y[starts[j]:starts[j+1]] for j in i]

    def loss(model, batch):
        xs, lengths = pad(batch[0])
        ys, mask = pad(batch[1], 0)[0], mask_of(lengths)
        return global_mean(F.cross_entropy(model(xs).mT, ys, reduction='none')[mask].sum(), mask.sum()), {'tokens': lengths.double().mean()}
    return plain_net(0, dtype), loss, data, 20, FitConfig(epochs=3, batch_size=6, lr=1e-2, bucket=2), dict(lengths=np.diff(starts))


class Experts(nn.Module):
    "A head per class of samples, and one that is never used."
    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(2)
        self.heads, self.unused = nn.ModuleList(nn.Linear(5, 3) for _ in range(2)), nn.Linear(5, 3)
        self.to(dtype)

    def forward(self, x, which):
        out = x.new_zeros(len(x), 3)
        for k, head in enumerate(self.heads):
            if (which == k).any(): out = out.index_put((torch.where(which == k)[0],), head(x[which == k]))
        return out


def case_experts(dtype):
    x, y = numbers(24, dtype)
    which = torch.arange(24) % 2

    class Batches:
        def set_epoch(self, e): self.e = e

        def __iter__(self): return iter([[0, 2, 4, 1, 3, 5], [6, 8, 7, 9], [10 + 2*self.e, 12, 14]])
    return Experts(dtype), lambda m, b: F.cross_entropy(m(b[0], b[1]), b[2]), lambda i: (x[i], which[i], y[i]), 24, FitConfig(epochs=3, lr=1e-2, weight_decay=.2), dict(batches=Batches())


CASES = dict(mean=case_mean, small=case_fewer_samples_than_processes, contrastive=pairs(whole_contrastive), rows=pairs(own_rows_contrastive), tokens=case_tokens, experts=case_experts)


def run_case(name, dtype, **kwargs):
    model, loss, data, n, config, more = CASES[name](dtype)
    if ranks()[0] and 'dev' in more: more['dev'] = lambda m: pytest.fail('rank 1 evaluates')
    run = fit(model, loss, data, n, config, **more, **kwargs)
    return dict(losses=run.step_losses, rows=rows(run), weights={k: v.tolist() for k, v in model.state_dict().items()}, best=run.best, samples=run.samples)


class PowerCut(Exception): pass


def cut_after(data, calls):
    left = iter(range(calls))

    def cut(i):
        if next(left, None) is None: raise PowerCut
        return data(i)
    return cut


def resumed_case(folder):
    "The mean case in float64, cut after seven steps and resumed."
    model, loss, data, n, config, more = case_mean(torch.float64)
    with pytest.raises(PowerCut): fit(model, loss, cut_after(data, 7), n, config, **more, folder=folder, save_every=2)
    return run_case('mean', torch.float64, folder=folder, save_every=2)


def spoilt_case(folder):
    "Sample 5 of a plain order is not finite; on two processes it is in the share of the second."
    x, y = numbers(8)
    x[5] = torch.nan

    class Batches:
        def set_epoch(self, e): pass

        def __iter__(self): return iter([[0, 1, 2, 3], [4, 6, 7, 5]])
    model = plain_net()
    try: fit(model, entropy, lambda i: (x[i], y[i]), 8, FitConfig(), batches=Batches(), folder=folder)
    except NonFinite as e: return dict(message=str(e), indices=e.indices, here=e.batch is not None, step=e.step, finite=all(p.isfinite().all().item() for p in model.parameters()))


def two_processes(out):
    torch.set_num_threads(1)
    result = {f'{name}-{dtype}': run_case(name, getattr(torch, dtype)) for dtype in ('float64', 'float32') for name in CASES}
    result['resumed'] = resumed_case(out / 'resumed')
    rank, world = ranks()
    result |= dict(rank=rank, world=world, batchnorm=batchnorm_agrees(), spoilt=spoilt_case(out / 'spoilt'), ddp={name: ddp_gradient(name) for name in ('tokens', 'called')},
                   bf16=fit(Towers(torch.float32), whole_contrastive, pairs(None)(torch.float32)[2], 23, FitConfig(epochs=1, precision='bf16')).step_losses, prepared=fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=1, workers=1)).step_losses)
    save_json(out / f'{rank}.json', result)


def ddp_gradient(name):
    "Gradient of a case's first loss under PyTorch's own wrapper, shares of 3 and 1 samples."
    model, loss, data, *_ = dict(CASES, called=case_called)[name](torch.float64)
    rank, world = ranks()
    share = np.split(np.arange(4), [3])[rank] if world > 1 else np.arange(4)
    called = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    out = loss(called, data(share))
    (out[0] if isinstance(out, tuple) else out).backward()
    return [p.grad.tolist() for p in model.parameters()]


class Called(nn.Module):
    "Towers whose `forward` gives both codes, as the wrapper needs."
    def __init__(self): super().__init__(); self.towers = Towers(torch.float64)

    def forward(self, v, t): return self.towers.encode_video(v), self.towers.encode_text(t), self.towers.scale


def case_called(dtype):
    x, _ = numbers(8, dtype)

    def loss(model, batch):
        v, t, scale = model(*batch)
        return F.cross_entropy(scale.exp() * gather(v) @ gather(t).T, torch.arange(4))
    return Called(), loss, lambda i: (x[:4][i], x[4:][i]), 4, None, {}


def batchnorm_agrees():
    "Checksum of a network with BatchNorm and dropout after training: the processes must end with one model."
    model = Net()
    fit(model, entropy, toy(), 60, FitConfig(epochs=2, batch_size=8, ema=.9))
    return sum(v.double().sum().item() for v in model.state_dict().values())


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    "What two processes under torchrun found."
    out = tmp_path_factory.mktemp('torchrun')
    done(script('two', out, torchrun=2))
    return [json.loads((out / f'{r}.json').read_text()) for r in range(2)], out


def largest(a, b):
    "Largest relative difference of two nests of numbers."
    if isinstance(a, dict): assert a.keys() == b.keys(); return max((largest(a[k], b[k]) for k in a), default=0)
    if isinstance(a, (list, tuple)): assert len(a) == len(b); return max((largest(p, q) for p, q in zip(a, b)), default=0)
    return 0. if a is b is None else abs(a - b) / max(1, abs(b))


@pytest.mark.parametrize('dtype, close', [('float64', 1e-12), ('float32', 2e-6)])
@pytest.mark.parametrize('name', CASES)
def test_two_processes_train_as_one(both, name, dtype, close):
    found, alone = both[0], run_case(name, getattr(torch, dtype))
    assert [(f['rank'], f['world']) for f in found] == [(0, 2), (1, 2)]
    for f in found: assert largest(f[f'{name}-{dtype}'], json.loads(json.dumps(alone))) < close
    assert found[0][f'{name}-{dtype}'] == found[1][f'{name}-{dtype}']


def test_two_processes_resume_as_one(both, tmp_path):
    alone = json.loads(json.dumps(run_case('mean', torch.float64)))
    for f in both[0]: assert largest(f['resumed'], alone) < 1e-12 and f['resumed'] == f['mean-float64']
    model, loss, data, n, config, more = case_mean(torch.float64)
    load_weights(both[1] / 'resumed', model)
    assert more['dev'](model)['loss on dev'] == pytest.approx(alone['best'][1], abs=1e-12)


@pytest.mark.parametrize('name', ['tokens', 'called'])
def test_gather_and_global_mean_are_right_under_ddp_too(both, name):
    for f in both[0]: assert largest(f['ddp'][name], ddp_gradient(name)) < 1e-12


def test_two_processes_prepare_batches_in_others(both):
    assert both[0][0]['prepared'] == pytest.approx(fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=1)).step_losses, abs=1e-6)


def test_two_processes_exchange_bf16(both):
    alone = fit(Towers(torch.float32), whole_contrastive, pairs(None)(torch.float32)[2], 23, FitConfig(epochs=1)).step_losses
    assert both[0][0]['bf16'] == both[0][1]['bf16'] == pytest.approx(alone, rel=.02)


def test_two_processes_end_with_one_model(both): assert both[0][0]['batchnorm'] == both[0][1]['batchnorm']


def test_two_processes_name_the_one_that_met_a_bad_sample(both, tmp_path):
    zero, one = (f['spoilt'] for f in both[0])
    assert zero['message'] == one['message'] == 'loss nan at step 2 (epoch 1, rank 1): samples 7, 5'
    assert (zero['here'], one['here']) == (False, True) and zero['finite'] and one['finite'] and one['indices'] == [7, 5]
    tensors, meta = training._read(both[1] / 'spoilt/nonfinite.safetensors')
    assert tensors['indices'].tolist() == [7, 5] and meta['rank'] == 1 and tensors['batch/0'].isnan().any(1).tolist() == [False, True]
    assert spoilt_case(tmp_path)['message'] == 'loss nan at step 2 (epoch 1): samples 4, 6, 7, 5'


def test_one_process_ranks_gather_and_mean():
    x = torch.ones(2, requires_grad=True)
    assert ranks() == (0, 1) and gather(x) is x
    y = global_mean(3*x.sum(), torch.tensor(4))
    y.backward()
    assert y.item() == 1.5 and x.grad.tolist() == [.75, .75]
    assert global_mean(torch.tensor(257, dtype=torch.bfloat16), 257).dtype == torch.float32


# --- the loop's arithmetic, against loops written out

@pytest.mark.parametrize('optimizer, reference', [('adamw', lambda g: torch.optim.AdamW(g, lr=.01, betas=(.8, .99))), ('adam', lambda g: torch.optim.Adam(g, lr=.01, betas=(.8, .99))),
                                                  ('sgd', lambda g: torch.optim.SGD(g, lr=.01, momentum=.7, nesterov=True))])
def test_against_a_loop_written_out(optimizer, reference):
    x, y = numbers(20, torch.float64)
    a, b = plain_net(0, torch.float64), plain_net(0, torch.float64)
    config = FitConfig(epochs=4, batch_size=8, optimizer=optimizer, lr=.01, betas=(.8, .99), momentum=.7, nesterov=optimizer == 'sgd', weight_decay=.3, warmup=1, min_lr=.002, clip=.45, ema=.5)
    run = fit(a, entropy, lambda i: (x[i], y[i]), 20, config, seed=5)
    opt = reference([{'params': [p for p in b.parameters() if p.ndim > 1], 'weight_decay': .3}, {'params': [p for p in b.parameters() if p.ndim == 1], 'weight_decay': 0.}])
    average, losses, t, norms = [p.detach().clone() for p in b.parameters()], [], 0, []
    for epoch in range(4):
        order = np.random.default_rng([5, epoch]).permutation(20)
        for i in (order[:8], order[8:16], order[16:]):
            for g in opt.param_groups: g['lr'] = .01*(t + 1)/3 if t < 3 else .002 + .008*(1 + np.cos(np.pi*(t - 3)/9))/2
            opt.zero_grad()
            value = entropy(b, (x[i], y[i]))
            value.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(b.parameters(), .45).item())
            opt.step()
            t += 1
            d = min(.5, (1 + t)/(10 + t))
            average = [d*m + (1 - d)*p.detach() for m, p in zip(average, b.parameters())]
            losses.append(value.item())
    assert min(norms) < .45 < max(norms)
    np.testing.assert_allclose(run.step_losses, losses, rtol=1e-5)
    for p, m in zip(a.parameters(), average): np.testing.assert_allclose(p.detach(), m, rtol=1e-4, atol=1e-5)
    assert [r['loss'] for r in run.history] == pytest.approx([(8*l[0] + 8*l[1] + 4*l[2])/20 for l in np.reshape(run.step_losses, (4, 3))])
    assert (run.samples, run.history[-1]['step'], run.stopped) == (80, 12, 'epochs')


def test_schedule():
    c = FitConfig(epochs=4, lr=2., warmup=.5, min_lr=1.)
    assert [lr_at(c, t/4, 4, 1/4) for t in (0, 1, 2)] == [1., 2., 2.]
    assert lr_at(c, 2.25, 4) == pytest.approx(1.5) and lr_at(c, 4, 4) == 1. and lr_at(c, 5, 4) == 1.
    assert {lr_at(FitConfig(lr=2., schedule='constant'), t, 10) for t in range(10)} == {2.}
    run = fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=9, batch_size=10, max_steps=8, lr=1.))
    assert run.stopped == 'steps' and len(run.step_losses) == 8 and [r['step'] for r in run.history] == [6, 8]
    assert run.history[-1]['lr'] == pytest.approx((1 + np.cos(np.pi*7/8))/2)
    exact = fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=9, batch_size=10, max_steps=12))
    assert exact.stopped == 'steps' and [r['step'] for r in exact.history] == [6, 12]


def test_bf16_only_where_asked_for_on_a_cpu():
    kinds = []

    def loss(model, batch):
        out = model(batch[0])
        kinds.append(out.dtype)
        return F.cross_entropy(out, batch[1])
    for precision in ('auto', 'fp32', 'bf16'): fit(plain_net(), loss, toy(), 60, FitConfig(epochs=1, batch_size=60, precision=precision))
    assert kinds == [torch.float32, torch.float32, torch.bfloat16]


def test_compiled_model_is_the_same_model(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(torch, 'compile', lambda m: made.append(m) or torch._dynamo.optimize('eager')(m))
    a, b = plain_net(), plain_net()
    one = fit(a, entropy, toy(), 60, FitConfig(epochs=2, compile=True), folder=tmp_path)
    assert made == [a] and one.step_losses == fit(b, entropy, toy(), 60, FitConfig(epochs=2)).step_losses and same(a, b)
    assert same(load_weights(tmp_path, plain_net(9), 'last'), a)


def test_workers_bucket_and_watch_do_not_change_random_data():
    def run(watch=None, **kwargs): return fit(Net(), lambda m, b: entropy(m, b) + random.random(), noisy, 60, FitConfig(epochs=2, batch_size=8, **kwargs), watch=watch).step_losses
    assert run() == run(workers=1) == run(workers=2) == run({'x': lambda m: {'y': torch.rand(3).sum().item() + random.random()}})


def test_overhead():
    x, y = torch.randn(3200, 32), torch.randint(0, 10, (3200,))

    def net(): torch.manual_seed(0); return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def bare():
        model, losses = net(), []
        opt = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0., fused=True)
        for epoch in range(3):
            for b in np.split(np.random.default_rng([0, epoch]).permutation(3200), 100):
                value = entropy(model, (x[b], y[b]))
                value.backward()
                opt.step()
                opt.zero_grad()
                losses.append(value.item())
        return losses

    def looped(): return fit(net(), entropy, lambda i: (x[i], y[i]), 3200, FitConfig(epochs=3, schedule='constant')).step_losses
    assert bare() == looped()
    took = np.array([[timeit.timeit(f, number=1, timer=time.process_time) for f in (bare, looped)] for _ in range(7)]).min(0)
    assert took[1] / took[0] < 4


# --- selection, stopping

def scripted(values, name='score'):
    seen = iter(values)
    return lambda model: {name: next(seen)}


@pytest.mark.parametrize('better, best', [('higher', (3, 5.)), ('lower', (1, 1.))])
def test_early_stopping_keeps_the_best_epoch(better, best, tmp_path):
    values, states = [1., 3., 5., 5., 4., 4., 9.], []

    def dev(model): states.append({k: v.clone() for k, v in model.state_dict().items()}); return {'score': values[len(states) - 1]}
    for folder in (None, tmp_path / better):
        states.clear()
        model = Net()
        run = fit(model, entropy, toy(), 60, FitConfig(epochs=7, monitor='score', better=better, patience=3, ema=.8), dev=dev, folder=folder)
        assert run.best == best and run.stopped == 'patience' and len(run.history) == best[0] + 3 and not model.training
        assert all(torch.equal(v, states[best[0] - 1][k]) for k, v in model.state_dict().items())


def test_every_evaluates_the_last_epoch_too():
    run = fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=5, every=2, monitor='score'), dev=scripted([1., 2., 3.]), watch={'test': scripted([7., 8., 9.])})
    assert [r.get('score') for r in run.history] == [None, 1., None, 2., 3.] and [r.get('test/score') for r in run.history] == [None, 7., None, 8., 9.] and run.best == (5, 3.)


def test_without_monitor_the_last_epoch_is_kept():
    a, b = plain_net(), plain_net()
    fit(a, entropy, toy(), 60, FitConfig(epochs=3), dev=scripted([3., 2., 1.]))
    run = fit(b, entropy, toy(), 60, FitConfig(epochs=3))
    assert same(a, b) and run.best is None


def test_only_dev_selects():
    common = dict(n=60, config=FitConfig(epochs=2, monitor='score'))
    with pytest.raises(InputError, match='dev: expected metrics of the development set'): fit(plain_net(), entropy, toy(), dev=scripted([1.], 'test/score'), **common)
    with pytest.raises(InputError, match='monitor: expected a known monitor .nearest: score2'): fit(plain_net(), entropy, toy(), dev=scripted([1.], 'score2'), **common)
    for monitor in ('test/score', 'held out/score'):
        with pytest.raises(InputError, match='monitor: expected one of top-1, found'):
            fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=2, monitor=monitor), dev=scripted([1., 1.], 'top-1'), watch={monitor.split('/')[0]: scripted([1., 2.])})
    with pytest.raises(InputError, match='dev: expected a function that finds score'): fit(plain_net(), entropy, toy(), watch={'test': scripted([1.])}, **common)
    with pytest.raises(InputError, match='dev.score: expected a finite number or null, found nan'): fit(plain_net(), entropy, toy(), dev=scripted([float('nan')]), **common)
    with pytest.raises(InputError, match='dev.score: expected a number, found None'): fit(plain_net(), entropy, toy(), dev=scripted([None]), **common)
    with pytest.raises(InputError, match='fit: loss: expected a name that the history does not have yet'): fit(plain_net(), entropy, toy(), 60, FitConfig(), dev=scripted([1.], 'loss'))


def test_ema_weights_are_judged_and_training_goes_on_with_the_others():
    class One(nn.Module):
        def __init__(self): super().__init__(); self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64)); self.register_buffer('steps', torch.zeros(1, dtype=torch.float64))

    def loss(model, batch): model.steps.add_(1); return model.w.sum()
    seen, modes, one = [], [], One()
    fit(one, loss, lambda i: (), 1, FitConfig(epochs=3, optimizer='sgd', momentum=0., lr=1., schedule='constant', ema=.9),
        dev=lambda m: seen.append((m.w.item(), m.steps.item())) or modes.append((m.training, torch.is_grad_enabled())) or {})
    w, expected = 0., []
    for t in (1, 2, 3): d = (1 + t)/(10 + t); w = d*w - (1 - d)*t; expected.append((w, -w))
    assert seen == [pytest.approx(e) for e in expected] and one.w.item() == pytest.approx(w) and set(modes) == {(False, False)}


# --- not a number

@pytest.mark.parametrize('what', ['loss', 'gradient norm'])
def test_non_finite_leaves_the_last_good_state(what, tmp_path):
    x, y = numbers()
    model, states = Net(), []

    def loss(model, batch):
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        value = entropy(model, batch)
        if 17 not in batch[2]: return value
        return value * (float('nan') if what == 'loss' else 1) + (0 if what == 'loss' else torch.sqrt(model.layers[0].weight.sum() * 0.))
    before = meter()
    with pytest.raises(NonFinite, match=rf'{what} (nan|inf) at step \d+ \(epoch 1\): samples .*17') as e:
        fit(model, loss, lambda i: (x[i], y[i], i), 60, FitConfig(batch_size=8, ema=.9), folder=tmp_path, save_every=1)
    error = e.value
    assert 17 in error.indices and error.batch[2].tolist() == error.indices and error.step == len(states) and error.epoch == 1
    assert all(torch.equal(v, states[-1][k]) for k, v in model.state_dict().items()) and all(p.grad is None for p in model.parameters())
    assert step_of(tmp_path) == error.step - 1 and meter()['samples'] - before['samples'] == 8*(error.step - 1)
    assert training._read(tmp_path / 'nonfinite.safetensors')[0]['batch/0'].shape == (8, 5)


def test_non_finite_is_said_whatever_the_batch_holds(tmp_path, monkeypatch):
    x, y = numbers()
    run = lambda: fit(Net(), lambda m, b: entropy(m, b) * float('nan'), lambda i: (x[i], y[i], np.array([f'clip {k}' for k in i])), 60, FitConfig(batch_size=8), folder=tmp_path)
    with pytest.raises(NonFinite, match='step 1'): run()
    assert set(training._read(tmp_path / 'nonfinite.safetensors')[0]) == {'indices', 'batch/0', 'batch/1'}
    def full(*a): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(training, '_write', full)
    with pytest.raises(NonFinite, match='step 1') as e: run()
    assert 'No space left on device' in e.value.__notes__[0]


# --- checkpoints

def test_checkpoint_holds_what_it_says(tmp_path):
    run = fit(Net(), entropy, toy(), 60, FitConfig(epochs=2, ema=.9, monitor='score'), dev=scripted([2., 1.]), folder=tmp_path, seed=4)
    tensors, meta = training._read(tmp_path / 'last.safetensors')
    assert {k.partition('/')[0] for k in tensors} == {'model', 'ema', 'optimizer', 'losses'} and tensors['losses'].tolist() == run.step_losses
    assert (meta['epoch'], meta['step'], meta['seed'], meta['best'], meta['stopped'], meta['n']) == (2, 4, 4, [1, 2.], 'epochs', 60) and meta['history'] == run.history
    assert meta['config']['ema'] == .9 and training._read(tmp_path / 'best.safetensors')[1]['epoch'] == 1


def test_tied_weights_survive(tmp_path):
    class Tied(nn.Module):
        def __init__(self): super().__init__(); torch.manual_seed(0); self.a, self.b = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False); self.b.weight = self.a.weight; self.head = nn.Linear(5, 3)

        def forward(self, x): return self.head(self.b(self.a(x)))
    a, b = Tied(), Tied()
    run = fit(a, entropy, toy(), 60, FitConfig(epochs=3, ema=.9))
    with pytest.raises(PowerCut): fit(b, entropy, cut_after(toy(), 3), 60, FitConfig(epochs=3, ema=.9), folder=tmp_path, save_every=1)
    c = Tied()
    assert fit(c, entropy, toy(), 60, FitConfig(epochs=3, ema=.9), folder=tmp_path).step_losses == run.step_losses and same(a, c) and c.a.weight is c.b.weight
    assert count_parameters(c) == 25 + 18


def small(folder, **kwargs):
    more = dict(config=FitConfig(epochs=2), seed=0, model=plain_net(), n=60) | kwargs
    return fit(more['model'], entropy, toy(), more['n'], more['config'], seed=more['seed'], folder=folder)


@pytest.mark.parametrize('field, change', [('config.lr', dict(config=FitConfig(epochs=2, lr=.5))), ('config.epochs', dict(config=FitConfig(epochs=3))), ('seed', dict(seed=1)), ('n', dict(n=50)),
                                           ('model.0.weight', dict(model=nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3)))), ('model.0.weight', dict(model=plain_net(0, torch.float64))),
                                           ('config.ema', dict(config=FitConfig(epochs=2, ema=.9)))])
def test_another_training_is_refused_by_field(field, change, tmp_path):
    small(tmp_path)
    with pytest.raises(InputError, match='last.safetensors: ') as e: small(tmp_path, **change)
    assert e.value.field == field


def test_afresh_workers_and_a_finished_run(tmp_path):
    first = small(tmp_path)
    before = meter()
    assert small(tmp_path, config=FitConfig(epochs=2, workers=1)).step_losses == first.step_losses and meter() == before
    run = fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=1), seed=9, folder=tmp_path, resume=False)
    assert len(run.step_losses) == 2 and meter()['samples'] == before['samples'] + 60 and meter()['seconds'] > before['seconds']


@pytest.mark.parametrize('spoil, said', [(lambda p: p.write_bytes(p.read_bytes()[:-9]), 'complete safetensors'), (lambda p: p.write_bytes(b''), 'complete safetensors'),
                                         (lambda p: training.save_file({'a': torch.ones(1)}, p), 'signbook.training')])
def test_damaged_and_foreign_checkpoints(spoil, said, tmp_path):
    small(tmp_path)
    spoil(tmp_path / 'last.safetensors')
    for f in (lambda: small(tmp_path), lambda: load_weights(tmp_path, plain_net(), 'last')):
        with pytest.raises(InputError, match=said): f()


def test_load_weights_bad_input(tmp_path):
    with pytest.raises(InputError, match='best.safetensors: file: expected a checkpoint, found no such file'): load_weights(tmp_path, plain_net())
    with pytest.raises(InputError, match='nearest: best'): load_weights(tmp_path, plain_net(), 'bets')


def test_full_disk_leaves_the_old_checkpoint(tmp_path):
    resource = pytest.importorskip('resource')
    with pytest.raises(PowerCut): fit(plain_net(), entropy, cut_after(toy(), 1), 60, FitConfig(epochs=2), folder=tmp_path, save_every=1)
    before, limit = (tmp_path / 'last.safetensors').read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        with pytest.raises(OSError, match='last.safetensors: not written'): small(tmp_path)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (tmp_path / 'last.safetensors').read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['last.safetensors']
    assert small(tmp_path).step_losses == small(None).step_losses


def test_a_sampler_that_changed_is_refused_in_mid_epoch(tmp_path):
    class Batches:
        def __init__(self, order): self.order = order

        def set_epoch(self, e): self.e = e

        def __iter__(self): return iter(self.order[self.e])
    run = dict(n=60, config=FitConfig(epochs=2), folder=tmp_path, save_every=1)
    first = [[[0, 1], [2], [3]], [[4], [5], [6]]]
    with pytest.raises(PowerCut): fit(plain_net(), entropy, cut_after(toy(), 4), batches=Batches(first), **run)
    with pytest.raises(InputError, match='batches: expected the order of epoch 1 as before the interruption'): fit(plain_net(), entropy, toy(), batches=Batches([first[0], first[1][::-1]]), **run)
    assert fit(plain_net(), entropy, toy(), batches=Batches(first), **run).step_losses == fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=2), batches=Batches(first)).step_losses


# --- bad input

@pytest.mark.parametrize('field, value', [('epochs', 0), ('epochs', True), ('batch_size', 1.), ('lr', 0), ('lr', float('inf')), ('lr', '1'), ('weight_decay', -1.), ('momentum', 1.), ('betas', (.9,)), ('betas', (.9, 1.)),
                                          ('warmup', -1), ('warmup', 10), ('min_lr', 1.), ('clip', 0.), ('ema', 1.), ('optimizer', 'lamb'), ('schedule', 'step'), ('precision', 'fp16'), ('better', 'max'),
                                          ('bucket', -1), ('every', 0), ('workers', None), ('drop_last', 1), ('compile', 'no'), ('nesterov', True), ('max_steps', 0), ('monitor', None)])
def test_bad_configuration(field, value):
    with pytest.raises(InputError) as e: FitConfig(**{field: value})
    assert e.value.where == 'FitConfig' and e.value.field == field


@pytest.mark.parametrize('change, said', [(dict(n=0), 'n: expected an integer >= 1'), (dict(seed=-1), 'seed'), (dict(config={}), 'config: expected a FitConfig, found dict'), (dict(lengths=[1]), 'lengths: expected shape'),
                                          (dict(config=FitConfig(bucket=2)), 'lengths: expected one per sample'), (dict(watch={'': len}), 'watch'), (dict(save_every=0), 'save_every'), (dict(folder=__file__), 'folder: expected a folder, found a file: .*test_training.py'), (dict(folder=Path(__file__) / 'deeper'), 'folder: expected a folder'), (dict(batches=[[1]]), 'batches: expected a sampler with set_epoch'), (dict(device='gpu'), 'device'),
                                          (dict(config=FitConfig(batch_size=64, drop_last=True)), 'none of 64 from 60 samples'), (dict(loss=lambda m, b: m(b[0])), 'loss: expected a tensor of one number, found shape'),
                                          (dict(loss=lambda m, b: 1.), 'loss: .* found float'), (dict(loss=lambda m, b: torch.ones(())), 'one without gradient'), (dict(model=nn.ReLU()), 'at least one trainable'),
                                          (dict(dev=lambda m: 1.), 'dev: expected a dict of metrics, found float'), (dict(loss=lambda m, b: (entropy(m, b), {'a': float('nan')})), 'history.a: expected a finite number')])
def test_bad_arguments(change, said):
    a = dict(model=plain_net(), loss=entropy, data=toy(), n=60, config=FitConfig(epochs=1)) | change
    with pytest.raises(InputError, match=said): fit(**a)


@pytest.mark.parametrize('batch', [[-1], [60], [], [.5], [[1]]])
def test_bad_batches(batch):
    class Batches(list):
        def set_epoch(self, e): pass
    with pytest.raises(InputError, match=r'batches, epoch 0, batch 1: expected indices in \[0, 60\)'): fit(plain_net(), entropy, toy(), 60, FitConfig(), batches=Batches([[1], batch]))


# --- small tools

@pytest.mark.parametrize('bucket', [0, 1, 3])
def test_length_batches_hold_each_sample_once(bucket):
    lengths = np.random.default_rng(0).integers(1, 50, 101)
    epochs = [length_batches(lengths, 8, 2, e, bucket) for e in range(3)]
    for batches in epochs: assert sorted(np.concatenate(batches)) == list(range(101)) and sorted(map(len, batches)) == [5, *[8]*12]
    assert epochs[0][0].tolist() != epochs[1][0].tolist() and all(len(b) == 8 for b in length_batches(lengths, 8, 2, 0, bucket, drop_last=True))
    if bucket == 3: assert np.mean([np.ptp(lengths[b]) for b in epochs[0]]) < .6*np.mean([np.ptp(lengths[b]) for b in length_batches(lengths, 8, 2, 0)])


def test_pad_and_mask():
    x, n = pad([torch.ones(2, 3, dtype=torch.float64), np.zeros((0, 3)), torch.ones(4, 3, dtype=torch.float64)], -1.)
    assert x.shape == (3, 4, 3) and x.dtype == torch.float64 and n.tolist() == [2, 0, 4]
    assert torch.equal(mask_of(n), (x != -1).all(-1)) and mask_of(n, 6).shape == (3, 6) and mask_of(torch.tensor([1]))[0].tolist() == [True]
    for bad in ([], [np.ones((2, 3)), np.ones(2)], [np.float64(3)]):
        with pytest.raises(InputError): pad(bad)


def test_decay_spares_one_dimension():
    a, b = make_optimizer(Net(), FitConfig(weight_decay=.1)).param_groups
    assert (a['weight_decay'], b['weight_decay']) == (.1, 0.) and {p.ndim for p in a['params']} == {2} and {p.ndim for p in b['params']} == {1}


def test_learning_curve():
    import matplotlib
    matplotlib.use('agg')
    run = fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=3, every=2), dev=scripted([1., 2.]))
    axes = learning_curve({'a': run, 'b': run.history}).axes
    assert [ax.get_title('left') for ax in axes] == ['loss', 'score'] and axes[1].lines[0].get_xdata().tolist() == [2, 3] and len(axes[0].lines) == 2
    with pytest.raises(InputError): learning_curve([])


def test_progress_is_quiet_unless_someone_looks(capfd, monkeypatch):
    fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=1))
    real = training.tqdm
    monkeypatch.setattr(training, 'tqdm', lambda **kw: real(**kw | dict(delay=0, mininterval=0)))
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    monkeypatch.setenv('SIGNBOOK_QUIET', '1')
    fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=1))
    assert capfd.readouterr() == ('', '')
    monkeypatch.delenv('SIGNBOOK_QUIET')
    fit(plain_net(), entropy, toy(), 60, FitConfig(epochs=1))
    said = capfd.readouterr()
    assert '2/2' in said.err + said.out


if __name__ == '__main__':
    torch.set_num_threads(1)
    if sys.argv[1] == 'two': two_processes(Path(sys.argv[2]))
    else: write_killed(Path(sys.argv[2]), sys.argv[3], 0)
