"""signbook.signcl against golden values, slow obvious loops in float64, several processes and bad input."""
import itertools
import json
import math
import multiprocessing
import random
import socket
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from signbook.core import InputError
from signbook.signcl import VARIANTS, bands, distance_map, distinct, margins, pair_distance, reaches, released_margin, released_pairs, signcl_loss

NORM = {'euclidean': 2, 'l1': 1}
PULL = {'hinge': lambda d, m: d, 'softplus': lambda d, m: F.softplus(d - m)}
PUSH = {'hinge': lambda d, m: (m - d).clamp_min(0), 'softplus': lambda d, m: F.softplus(m - d)}


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    "Small tensors: threads only wait for each other."
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def clips(B=3, T=40, D=6, seed=0, scale=20., dtype=torch.float64): return scale*torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both(loss, frames):
    x = frames.clone().requires_grad_()
    y = loss(x); y.backward()
    return y.item(), x.grad


def distance(a, b, kind):
    v = a - b
    return v.abs().sum() if kind == 'l1' else (v*v).sum().sqrt() if (v != 0).any() else v.sum()


def slow_expected(frames, lengths, margin, kind='euclidean', form='hinge', m=64.):
    "Equation 5, every candidate visited."
    total = frames.sum()*0
    for x, n, reach in zip(frames, lengths, [2*g for g in margin]):
        for i in range(n):
            near = [PULL[form](distance(x[i], x[j], kind), m) for j in (i - 1, i + 1) if 0 <= j < n]
            far = [PUSH[form](distance(x[i], x[j], kind), m) for j in range(n) if abs(j - i) > reach]
            total = total + sum(sum(side)/len(side) for side in (near, far) if side)/n/len(frames)
    return total


def slow_released(frames, margin, rng, m=32.):
    "The released procedure, one anchor at a time."
    B, T, _ = frames.shape
    total = 0.
    for a in range(1, T - 2):
        near = rng.sample([a - 1, a + 1], 2)
        far = [j for j in range(2, T - 2) if abs(j - a) > margin]
        far = rng.sample(far, min(4, len(far)))
        gap = lambda others: torch.stack([(frames[:, a] - frames[:, j]).abs().sum(-1) for j in others])
        total = total + F.softplus(gap(near) - m).mean() + (F.softplus(m - gap(far)).mean() if far else 0.)
    return total/(B*(T - 4))


# golden values

@pytest.mark.parametrize('dtype,rel', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_released_golden(golden, dtype, rel):
    for case in json.loads((golden / 'slt.json').read_text())['signcl_official']:
        if 'neg_idx' not in case: continue
        x = torch.tensor(case['x'], dtype=dtype)
        value, grad = both(lambda x: signcl_loss(x, None, None, 'released', margin=case['margin'], rng=random.Random(case['py_seed'])), x)
        assert value == pytest.approx(case['loss'], rel=rel)
        assert grad.abs().sum().item() == pytest.approx(case['grad_l1'], rel=rel)
        assert grad[0, 5].tolist() == pytest.approx(case['grad_0_5'], rel=rel)


def test_released_golden_indices(golden):
    for case in json.loads((golden / 'slt.json').read_text())['signcl_official']:
        if 'neg_idx' not in case: continue
        _, negative = released_pairs(case['T'], case['margin'], random.Random(case['py_seed']))
        assert negative.second.reshape(-1, 4).tolist() == case['neg_idx']
        assert negative.first.tolist() == np.repeat(np.arange(1, case['T'] - 2), 4).tolist()


def test_global_generator_is_the_default():
    x = clips()
    random.seed(5); a = signcl_loss(x, None, None, 'released', margin=8).item()
    assert a == signcl_loss(x, None, None, 'released', margin=8, rng=random.Random(5)).item()
    random.seed(5); b = signcl_loss(x, None, None, margin=8).item()
    assert b == signcl_loss(x, None, None, margin=8, rng=random.Random(5)).item()


# slow obvious versions

@pytest.mark.parametrize('T,margin', [(24, 5), (40, 12), (33, 0), (20, -5), (16, 20), (5, 1), (48, 7.5)])
def test_released_equals_the_loop(T, margin):
    x = clips(T=T, scale=8.)
    ours, loop = (both(f, x) for f in (lambda x: signcl_loss(x, None, None, 'released', margin=margin, rng=random.Random(1)), lambda x: slow_released(x, margin, random.Random(1))))
    assert ours[0] == pytest.approx(loop[0], rel=1e-12)
    assert torch.allclose(ours[1], loop[1], rtol=1e-11, atol=1e-14)


def test_released_leaves_the_generator_where_the_loop_leaves_it():
    a, b = random.Random(2), random.Random(2)
    signcl_loss(clips(), None, None, 'released', margin=8, rng=a); slow_released(clips(), 8, b)
    assert a.random() == b.random()


@pytest.mark.parametrize('kind,form,m', [('euclidean', 'hinge', 64.), ('euclidean', 'hinge', 0.), ('l1', 'hinge', 90.), ('euclidean', 'softplus', 50.), ('l1', 'softplus', 32.)])
def test_expected_equals_the_loop(kind, form, m):
    lengths, margin = [40, 27, 9], [6., 4.25, 3.]
    x = clips()
    ours, loop = (both(f, x) for f in (lambda x: signcl_loss(x, lengths, None, 'expected', margin=margin, distance=kind, form=form, threshold=m), lambda x: slow_expected(x, lengths, margin, kind, form, m)))
    assert ours[0] == pytest.approx(loop[0], rel=1e-10)
    assert torch.allclose(ours[1], loop[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('n', [5, 6, 7])
def test_paper_mean_over_all_draws_is_the_expectation(n):
    "Every combination of draws of a tiny clip, made by hand."
    x, margin = clips(1, n, 3), 1.5
    options = [[(p, q) for p in (i - 1, i + 1) if 0 <= p < n for q in ([j for j in range(n) if abs(j - i) > 3] or [None])] for i in range(n)]
    one = lambda i, p, q: (x[0, i] - x[0, p]).norm() + (0 if q is None else (64 - (x[0, i] - x[0, q]).norm()).clamp_min(0))
    values = {round(sum(one(i, *o) for i, o in enumerate(chosen)).item()/n, 9) for chosen in itertools.product(*options)}
    drawn = [round(signcl_loss(x, None, None, margin=margin, rng=random.Random(s)).item(), 9) for s in range(400)]
    assert set(drawn) <= values
    assert len(set(drawn)) > min(20, .5*len(values))
    exact = np.mean([np.mean([one(i, *o).item() for o in opts]) for i, opts in enumerate(options)])
    assert signcl_loss(x, None, None, 'expected', margin=margin).item() == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize('options', [{}, {'positives': 2, 'negatives': 4}, {'distance': 'l1', 'form': 'softplus', 'threshold': 120.}])
def test_draws_average_to_the_expectation(options):
    x, lengths, words = clips(2, 48, 5), [48, 33], [9, 6]
    rng = random.Random(0)
    drawn = np.array([signcl_loss(x, lengths, words, rng=rng, **options).item() for _ in range(900)])
    exact = signcl_loss(x, lengths, words, 'expected', **options).item()
    assert abs(drawn.mean() - exact) < 4*drawn.std(ddof=1)/math.sqrt(len(drawn))


def test_drawn_gradients_average_to_the_expected_gradient():
    x, lengths, words = clips(2, 30, 4), [30, 26], [6, 5]
    rng = random.Random(1)
    g = torch.stack([both(lambda x: signcl_loss(x, lengths, words, rng=rng), x)[1] for _ in range(900)])
    exact = both(lambda x: signcl_loss(x, lengths, words, 'expected'), x)[1]
    error = g.std(0)/math.sqrt(len(g))
    z = ((g.mean(0) - exact).abs()/error.clamp_min(1e-12))[error > 1e-12]
    assert z.max() < 5 and (z < 2).float().mean() > .9


def test_negatives_are_distinct_uniform_and_beyond_two_margins():
    picked, drawn = distinct(np.array([0, 1, 2, 7] * 5000), np.random.default_rng(0).random((20000, 3)))
    assert (drawn.sum(1) == np.minimum([0, 1, 2, 7] * 5000, 3)).all()
    rows = picked[3::4]
    assert (np.sort(rows, 1)[:, 1:] > np.sort(rows, 1)[:, :-1]).all()
    for column in rows.T: assert abs(np.bincount(column, minlength=7) - 5000/7).max() < 4.5*math.sqrt(5000/7*6/7)
    assert (bands(50, 23)[0, 24:] == 3).all() and (bands(50, 23)[0, 2:24] == 2).all()


# margin

def test_margin_formulas():
    assert margins([115, 40], [23, 40]).tolist() == pytest.approx([11.5, 10.])
    assert margins(torch.tensor([100]), torch.tensor([10]), 3., 50).tolist() == [50.]
    words, glosses, frames = torch.tensor([12, 9]), torch.tensor([5, 6]), torch.tensor([90, 120])
    assert margins(frames, words, words/glosses, 0).tolist() == pytest.approx((frames/glosses).tolist())
    assert reaches([11.5, 10., 10.2]).tolist() == [23, 20, 20]
    assert [released_margin(T, 20) for T in (128, 300, 60, 31, 20)] == [32, 72, 15, 0, -5]


@pytest.mark.parametrize('zipf,least', [(1., 10), (torch.tensor([2.1, 1.7, 3.]), 10), (4., 0), (2.3, 50)])
def test_margin_keywords_reach_the_loss(zipf, least):
    x, lengths, words = clips(3, 60), [60, 50, 44], [10, 12, 4]
    by_hand = [max(least, n/w*z) for n, w, z in zip(lengths, words, torch.as_tensor(zipf).expand(3).tolist())]
    a, b = (signcl_loss(x, lengths, words, 'expected', **k).item() for k in ({'zipf_factor': zipf, 'min_margin': least}, {'margin': by_hand}))
    assert a == b
    assert signcl_loss(x, lengths, words, 'released', rng=random.Random(0)).item() == signcl_loss(x, None, None, 'released', margin=released_margin(60, 12), rng=random.Random(0)).item()


# short clips, padding, identical frames

@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('T', [1, 2, 3, 4, 5, 6, 12, 20, 21, 25])
def test_short_clips_are_finite(variant, T):
    value, grad = both(lambda x: signcl_loss(x, [T, 1], [3, 1], variant, rng=random.Random(0)), clips(2, T))
    assert math.isfinite(value) and grad.isfinite().all()


def test_what_short_clips_give():
    x = clips(1, 10)
    steps = (x[0, 1:] - x[0, :-1]).norm(dim=1)
    near = (2*steps.sum() + steps[0] + steps[-1])/2/10
    for v in ('paper', 'expected'): assert signcl_loss(x[:, :1], [1], [1], v).item() == 0
    assert signcl_loss(x, [10], [1], 'expected', margin=5).item() == pytest.approx(near.item())
    assert signcl_loss(torch.cat([x, x]), [10, 1], [1, 1], 'expected', margin=5).item() == pytest.approx(near.item()/2)
    drawn = {round(signcl_loss(x[:, :3], [3], [1], margin=5, rng=random.Random(s)).item(), 9) for s in range(30)}
    assert drawn == {round((steps[0] + steps[1] + steps[k]).item()/3, 9) for k in (0, 1)}
    for T in (1, 2, 3, 4): assert signcl_loss(x[:, :T], None, None, 'released', margin=2).item() == 0
    l1 = (x[0, 1:] - x[0, :-1]).abs().sum(1)
    assert signcl_loss(x, None, None, 'released', margin=30).item() == pytest.approx(sum(F.softplus(l1[[i - 1, i]] - 32).mean().item() for i in range(1, 8))/6)


@pytest.mark.parametrize('variant', ['paper', 'expected'])
@pytest.mark.parametrize('kind', NORM)
def test_padding_is_never_read(variant, kind):
    lengths, words = [50, 31, 1], [6, 4, 1]
    x, rng = clips(3, 50), lambda: random.Random(3)
    options = dict(variant=variant, distance=kind)
    valid = torch.arange(50) < torch.tensor(lengths)[:, None]
    clean, dirty = (both(lambda x: signcl_loss(x, lengths, words, rng=rng(), **options), f) for f in (x, x.masked_fill(~valid[..., None], math.nan)))
    assert clean[0] == dirty[0] and torch.equal(clean[1], dirty[1]) and not dirty[1][~valid].any()
    longer = signcl_loss(F.pad(x, (0, 0, 0, 13), value=1.), lengths, words, rng=rng(), **options)
    assert longer.item() == pytest.approx(clean[0], rel=1e-12)


def test_released_reads_padding():
    x = clips(1, 40)
    alone, padded = (signcl_loss(f, [40], [5], 'released', margin=8, rng=random.Random(0)).item() for f in (x, F.pad(x, (0, 0, 0, 20), value=1.)))
    assert abs(alone - padded) > .1


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('kind', NORM)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_identical_frames_have_gradient_zero(variant, kind, dtype):
    value, grad = both(lambda x: signcl_loss(x, [60, 45], [6, 5], variant, distance=kind, rng=random.Random(0)), 7.3*torch.ones(2, 60, 5, dtype=dtype))
    assert math.isfinite(value) and grad.isfinite().all() and grad.abs().max() < 1e-6
    x = clips(2, 60, dtype=dtype); x[:, 40] = x[:, 3]; x[:, 11] = x[:, 10]
    value, grad = both(lambda x: signcl_loss(x, [60, 45], [6, 5], variant, distance=kind, rng=random.Random(0)), x)
    assert math.isfinite(value) and grad.isfinite().all() and grad.abs().max() < 10


@pytest.mark.parametrize('size', [1, 1000])
def test_nothing_pushes_beyond_the_threshold(size):
    x = clips(1, 60, scale=1e4)
    value = [signcl_loss(x, None, None, 'expected', margin=10, threshold=m).item() for m in (64., 0.)]
    assert value[0] == value[1] and math.isfinite(signcl_loss(size*x.float(), None, None, 'expected', margin=10).item())


# gradients and precision

@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('kind,form', itertools.product(NORM, FORMS := ('hinge', 'softplus')))
def test_gradcheck(variant, kind, form):
    x = clips(2, 12, 3, scale=15.).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: signcl_loss(x, [12, 9], None, variant, margin=1 if variant != 'released' else 2, distance=kind, form=form, threshold=45., rng=random.Random(0)), x)


@pytest.mark.parametrize('kind', NORM)
def test_pair_distance_in_chunks(kind, monkeypatch):
    x, i, j = clips(1, 30, 7)[0], torch.randint(30, (200,)), torch.randint(30, (200,))
    whole = both(lambda x: pair_distance(x, i, j, kind).square().sum(), x)
    monkeypatch.setattr('signbook.signcl.CHUNK', {'cpu': 50})
    parts = both(lambda x: pair_distance(x, i, j, kind).square().sum(), x)
    assert whole[0] == pytest.approx(parts[0]) and torch.allclose(whole[1], parts[1])
    assert torch.allclose(pair_distance(x, i, j, kind), torch.linalg.vector_norm(x[i] - x[j], NORM[kind], -1))


@pytest.mark.parametrize('kind', NORM)
def test_distance_map(kind):
    x, valid = clips(2, 14, 5), torch.arange(14) < torch.tensor([[14], [9]])
    x[0, 3] = x[0, 8]
    whole = torch.linalg.vector_norm(x[:, :, None] - x[:, None], NORM[kind], -1)
    both_valid = valid[:, :, None] & valid[:, None]
    assert torch.allclose(distance_map(x, valid, kind)[both_valid], whole[both_valid], atol=1e-6)
    weight = torch.randn(2, 14, 14, dtype=torch.float64)*both_valid*(whole > 0)
    a, b = (both(lambda x: (f(x)*weight).sum(), x)[1] for f in (lambda x: distance_map(x, valid, kind), lambda x: torch.linalg.vector_norm(x[:, :, None] - x[:, None], NORM[kind], -1)))
    assert torch.allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize('variant', VARIANTS)
def test_float32_far_from_the_origin(variant):
    x = (clips(2, 64, 256, scale=2.) + 300).float().double()
    loss = lambda x: signcl_loss(x, [64, 50], [8, 8], variant, rng=random.Random(0))
    (a, g), (b, h) = both(loss, x), both(loss, x.float())
    assert b == pytest.approx(a, rel=2e-5) and ((g - h).norm()/g.norm()).item() < 1e-4


@pytest.mark.parametrize('variant', VARIANTS)
def test_half_precision_and_autocast_compute_in_float32(variant):
    x = clips(2, 64, 32, scale=4.).bfloat16()
    loss = lambda x: signcl_loss(x, [64, 50], [8, 8], variant, rng=random.Random(0))
    full = both(loss, x.float())
    with torch.autocast('cpu', torch.bfloat16): auto = both(loss, x.float())
    half = both(loss, x)
    assert full[0] == auto[0] == half[0] and torch.equal(full[1], auto[1])
    assert half[1].dtype == torch.bfloat16 and torch.allclose(half[1].float(), full[1], rtol=1e-2, atol=1e-6)


def test_strided_frames():
    x = clips(3, 40)
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)
    for v in VARIANTS: assert signcl_loss(turned, None, [4]*3, v, rng=random.Random(0)).item() == pytest.approx(signcl_loss(x, None, [4]*3, v, rng=random.Random(0)).item())


@pytest.mark.parametrize('variant,most', [('paper', 1.1), ('released', 1.1), ('expected', 2.5)])
def test_what_is_kept_for_the_backward_pass(variant, most):
    "In multiples of the frames; a loop keeps every difference, six times the frames for the released pairs."
    kept, x = {}, clips(2, 60, 512).requires_grad_()

    def keep(t): kept[t.untyped_storage().data_ptr()] = t.numel(); return t
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t): signcl_loss(x, [60, 60], [6, 6], variant, rng=random.Random(0))
    assert sum(kept.values()) < most*x.numel()


# batches and processes

def test_released_halves_when_the_batch_doubles():
    x = clips(1, 40)
    v = [signcl_loss(x.expand(B, -1, -1), None, None, 'released', margin=8, rng=random.Random(0)).item() for B in (1, 2, 4)]
    assert v[0] == pytest.approx(2*v[1]) == pytest.approx(4*v[2])


def test_expected_is_the_mean_of_its_clips():
    x, lengths, words = clips(3, 40), [40, 33, 21], [5, 5, 5]
    alone = [signcl_loss(x[b:b+1, :n], [n], [w], 'expected').item() for b, (n, w) in enumerate(zip(lengths, words))]
    assert signcl_loss(x, lengths, words, 'expected').item() == pytest.approx(np.mean(alone))


def _share(rank, world, port, bounds, queue):
    import torch.distributed as dist
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=world)
    x, lengths, words = clips(5, 40), [40, 37, 30, 22, 1], [5, 4, 5, 3, 1]
    part, out = slice(*bounds[rank]), {}
    for v in ('paper', 'expected'):
        top = max(lengths[part])
        value, grad = both(lambda x: signcl_loss(x[part, :top], lengths[part], words[part], v, rng=random.Random(7)), x)
        dist.all_reduce(grad)
        out[v] = value, (grad/world).numpy()
    if rank == 0: queue.put(out)
    dist.destroy_process_group()


def test_two_processes_equal_one():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    ctx = multiprocessing.get_context('spawn')
    queue = ctx.Queue()
    jobs = [ctx.Process(target=_share, args=(r, 2, port, [(0, 3), (3, 5)], queue)) for r in range(2)]
    for j in jobs: j.start()
    out = queue.get(timeout=120)
    for j in jobs: j.join(60)
    assert [j.exitcode for j in jobs] == [0, 0]
    for v, (value, grad) in out.items():
        one = both(lambda x: signcl_loss(x, [40, 37, 30, 22, 1], [5, 4, 5, 3, 1], v, rng=random.Random(7)), clips(5, 40))
        assert value == pytest.approx(one[0], rel=1e-12)
        assert np.allclose(grad, one[1].numpy(), rtol=1e-10, atol=1e-13)


# speed

def test_released_is_five_times_as_fast_as_the_loop():
    x, best = clips(8, 128, 1024, scale=1., dtype=torch.float32), [math.inf]*2

    def loop(x, rng):
        total = 0.
        for a in range(1, 126):
            near = rng.sample([a - 1, a + 1], 2)
            far = [j for j in range(2, 126) if abs(j - a) > 20]
            far = rng.sample(far, min(4, len(far)))
            gap = lambda others: (x[:, a, None] - x[:, others]).abs().sum(-1)
            total = total + F.softplus(gap(near) - 32).mean() + F.softplus(32 - gap(far)).mean()
        return total/(8*124)

    ours = lambda x, rng: signcl_loss(x, None, None, 'released', margin=20, rng=rng)
    for _ in range(6):
        for k, f in enumerate((loop, ours)):
            start = time.perf_counter(); both(lambda x: f(x, random.Random(0)), x); best[k] = min(best[k], time.perf_counter() - start)
    assert best[0] > 5*best[1]


def test_the_map_of_distances_has_full_precision():
    x = 30 + torch.randn(2, 20, 64, generator=torch.Generator().manual_seed(0)); valid, before = torch.ones(2, 20, dtype=torch.bool), torch.get_float32_matmul_precision()
    whole = distance_map(x, valid)
    try: torch.set_float32_matmul_precision('medium'); short = distance_map(x, valid); assert torch.get_float32_matmul_precision() == 'medium'
    finally: torch.set_float32_matmul_precision(before)
    assert torch.equal(whole, short)


# bad input

@pytest.mark.parametrize('field,change', [
    ('frames', dict(frames=torch.zeros(4, 5))), ('frames', dict(frames=torch.zeros(2, 5, 3, dtype=torch.long))), ('frames', dict(frames=np.zeros((2, 5, 3)))), ('frames', dict(frames=torch.zeros(0, 5, 3))),
    ('frames', dict(frames=torch.zeros(2, 0, 3), lengths=None)), ('lengths', dict(lengths=[5, 0])), ('lengths', dict(lengths=[5, 6])), ('lengths', dict(lengths=[5])), ('lengths', dict(lengths=[5, 2.5])), ('lengths', dict(lengths=['a', 'b'])),
    ('text_lengths', dict(text_lengths=[2, 0])), ('text_lengths', dict(text_lengths=None)), ('text_lengths', dict(text_lengths=[1, 2, 3])), ('variant', dict(variant='papr')), ('margin', dict(margin=-1)), ('margin', dict(margin=math.nan)),
    ('margin', dict(margin=[3, 4], variant='released')), ('zipf_factor', dict(zipf_factor=[2., 3.], variant='released')), ('zipf_factor', dict(zipf_factor=-1)), ('min_margin', dict(min_margin=math.inf)), ('threshold', dict(threshold=-1)),
    ('distance', dict(distance='cosine')), ('form', dict(form='hing')), ('positives', dict(positives=0)), ('positives: expected 1 or 2', dict(positives=3)), ('negatives', dict(negatives=1.5)), ('rng', dict(rng=7)), ('rng', dict(rng=np.random.default_rng(0)))])
def test_bad_input(field, change):
    good = dict(frames=torch.zeros(2, 5, 3), lengths=[5, 4], text_lengths=[2, 2])
    with pytest.raises(InputError, match=field): signcl_loss(**{**good, **change})
