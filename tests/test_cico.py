"""signbook.cico against golden values, the equations in float64, several processes, real texts and bad input."""
import json, math, os, re, subprocess, sys, textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from signbook import cico
from signbook.cico import *
from signbook.core import InputError
from signbook.corpora import load_corpus
from signbook.metrics import bootstrap_interval, retrieval_metrics


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before); plt.close('all')


@pytest.fixture(params=['kept', 'made again', 'small blocks'])
def memory(request, monkeypatch):
    if request.param != 'kept': monkeypatch.setattr(cico, 'KEEP_BYTES', 0)
    if request.param == 'small blocks': monkeypatch.setitem(cico.BLOCK_BYTES, 'cpu', 1)
    return request.param


def arrays(golden, name): return {k: torch.from_numpy(v) for k, v in np.load(golden/f'{name}.npz').items()}
def facts(golden, name): return json.loads((golden/'retrieval.json').read_text(encoding='utf-8'))[name]
def scale_of(f): return float(torch.tensor(f['logit_scale_log']).exp())
def near(a, b, eps): assert float((a - b).detach().abs().max()) <= eps*max(1e-300, float(b.detach().abs().max())), (a, b)


def tokens(A=5, B=7, I=6, J=4, D=8, seed=0, dtype=torch.double):
    g = torch.Generator().manual_seed(seed)
    v, w = torch.randn(A, I, D, generator=g, dtype=dtype), torch.randn(B, J, D, generator=g, dtype=dtype)
    masks = [torch.arange(n) < torch.randint(1, n + 1, (k, 1), generator=g) for k, n in ((A, I), (B, J))]
    return v, w, *masks


def slow(video, text, video_mask, text_mask, tau=.07, mask_inner=False):
    i2t, t2i = torch.zeros(len(video), len(text), dtype=video.dtype), torch.zeros(len(video), len(text), dtype=video.dtype)
    for a in range(len(video)):
        for b in range(len(text)):
            s = F.normalize(video[a], dim=-1) @ F.normalize(text[b], dim=-1).T
            signs, words = (video_mask[a].nonzero()[:, 0], text_mask[b].nonzero()[:, 0])
            r = s[signs][:, words] if mask_inner else s[signs]
            c = s[:, words][signs] if mask_inner else s[:, words]
            i2t[a, b], t2i[a, b] = (r*(r/tau).softmax(1)).sum(1).mean(), (c*(c/tau).softmax(0)).sum(0).mean()
    return i2t, t2i


# golden values

@pytest.mark.parametrize('name', ['cico_tiny_f64', 'cico_rect_f64'])
@pytest.mark.parametrize('dtype, eps', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_similarity_golden(golden, name, dtype, eps, memory):
    z, scale = arrays(golden, name), scale_of(facts(golden, name))
    v, w, valid = z['vis'].to(dtype), z['txt'].to(dtype), z['video_mask'] == 0
    i2t, t2i = cico_similarity(v, w, valid, z['text_mask'])
    near(scale*i2t, z['i2t_eval'], eps); near(scale*t2i, z['t2i_eval'], eps)
    near(scale*torch.from_numpy(cico_matrix(v, w, valid, z['text_mask'], device='cpu', dtype=float, block=3)), z['mixed_eval'], eps)
    assert i2t.dtype == dtype


@pytest.mark.parametrize('dtype, eps', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_loss_golden(golden, dtype, eps, memory):
    z, f = arrays(golden, 'cico_tiny_f64'), facts(golden, 'cico_tiny_f64')
    v, w, aug = (z[k].to(dtype).requires_grad_() for k in ('vis', 'txt', 'txt_aug'))
    log = torch.tensor(f['logit_scale_log'], requires_grad=True)
    loss = lambda **kw: cico_loss(v, w, z['video_mask'] == 0, z['text_mask'], log.exp(), aug, z['text_mask'], **kw)
    for name, kw in (('balance_0.5', {}), ('balance_0.8', dict(dual=.8)), ('balance_1.0', dict(dual=1.)), ('depart_0.8', dict(mix='depart', dual=.8))):
        near(loss(**kw), torch.tensor(f[f'loss_{name}'], dtype=torch.double), eps)
    loss().backward()
    for x, n in ((v, 'g_vis'), (w, 'g_txt'), (aug, 'g_txt_aug')): near(x.grad, z[n], eps)
    near(log.grad, z['g_logit_scale'], 1e-5)


def test_san_pairs_golden(golden):
    z, f = arrays(golden, 'san_tiny_f64'), facts(golden, 'san_tiny_f64')
    B, K, scale = f['B'], f['num_hard'], math.exp(f['logit_scale_log'])
    own, own_mask = z['txt'][:B], z['text_mask'][:B]
    i2t, t2i = cico_similarity(z['vis'], own, z['video_mask'], own_mask)
    near(scale*i2t, z['i2t'], 1e-10); near(scale*t2i.T, z['t2i'], 1e-10)
    hard = lambda x: torch.cat([x[:B, None], x[B:].unflatten(0, (B, K))], 1)
    near(scale*cico_pairs(z['vis'], hard(z['txt']), z['video_mask'], hard(z['text_mask']))[0], z['hard_i2t'], 1e-10)


def test_pooled_losses_golden(golden):
    z, f = arrays(golden, 'pooled_losses'), facts(golden, 'pooled_losses')
    s = pooled_similarity(z['v'][:, None], z['t'][:, None])
    for name, want in f.items():
        if m := re.fullmatch(r'hn_nce_(rowfixed_)?a([\d.]+)_b([\d.]+)(\(ours\))?', name): ours = hn_nce(s, alpha=float(m[2]), beta=float(m[3]), released=not m[1])
        elif m := re.fullmatch(r'vsepp_margin([\d.]+)_maxviol(True|False)', name): ours = vsepp_loss(s, float(m[1]), m[2] == 'True')
        elif name == 'plain_ce_v2t': ours = info_nce(s/.07)
        else: continue
        assert float(ours) == pytest.approx(want, rel=1e-6), name


@pytest.mark.parametrize('name', ['metrics_square60', 'metrics_grouped'])
def test_official_evaluation_golden(golden, name):
    z, f = np.load(golden/f'{name}.npz'), facts(golden, name)
    groups = np.repeat(np.arange(len(z['groups'])), z['groups'])
    got = evaluate_retrieval(z['sim'], groups, ties='official', resamples=100)
    for ours, theirs in (('t2v', 'T2V'), ('v2t', 'V2T')):
        for a, b in (('R1', 'R1'), ('R5', 'R5'), ('R10', 'R10'), ('MedR', 'MedianR'), ('MeanR', 'MeanR')): assert got.values[ours][a] == pytest.approx(f[theirs][b], rel=1e-6)
    assert sorted(got.ranks['t2v'] - 1) == sorted(f['T2V']['cols'])
    assert all(lo <= got.values[d][m] <= hi for d, ms in got.intervals.items() for m, (lo, hi) in ms.items())


# similarity

@pytest.mark.parametrize('kw', [{}, dict(mask_inner=True), dict(tau=.02), dict(tau=1., mask_inner=True)], ids=str)
def test_similarity_is_the_equation(kw, memory):
    v, w, vm, wm = tokens()
    for a, b in zip(cico_similarity(v, w, vm, wm, **kw), slow(v, w, vm, wm, **kw)): near(a, b, 1e-12)
    pairs = cico_pairs(v, w[None].expand(5, *w.shape), vm, wm[None].expand(5, *wm.shape), **kw)
    for a, b in zip(pairs, slow(v, w, vm, wm, **kw)): near(a, b, 1e-12)


@pytest.mark.parametrize('mask_inner', [False, True])
@pytest.mark.parametrize('outputs', [(1, 1), (1, 0), (0, 1)])
def test_gradients(mask_inner, outputs, memory):
    v, w, vm, wm = tokens()
    v, w = v.requires_grad_(), w.requires_grad_()
    u = torch.rand(2, 5, 7, dtype=torch.double)
    f = lambda g: lambda v, w: sum((o*k*y).sum() for o, k, y in zip(outputs, u, g(v, w, vm, wm, mask_inner=mask_inner)))
    assert torch.autograd.gradcheck(f(cico_similarity), (v, w))
    for a, b in zip(*(torch.autograd.grad(f(g)(v, w), (v, w)) for g in (cico_similarity, slow))): near(a, b, 1e-10)


def test_one_sided_gradients():
    v, w, vm, wm = tokens()
    for k in (0, 1):
        both = [x.clone().requires_grad_() for x in (v, w)]; alone = [x.clone().requires_grad_(i == k) for i, x in enumerate((v, w))]
        for x in (both, alone): sum(y.sum() for y in cico_similarity(*x, vm, wm)).backward()
        near(alone[k].grad, both[k].grad, 1e-14); assert alone[1-k].grad is None


def test_padding_counts_only_as_released():
    v, w, vm, wm = tokens()
    more = [torch.cat([x, torch.randn(len(x), 9, 8, dtype=torch.double)], 1) for x in (v, w)]
    masks = [F.pad(m, (0, 9)) for m in (vm, wm)]
    for a, b in zip(cico_similarity(*more, *masks, mask_inner=True), cico_similarity(v, w, vm, wm, mask_inner=True)): near(a, b, 1e-13)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(cico_similarity(*more, *masks), cico_similarity(v, w, vm, wm)))


def test_masked_tokens_have_no_influence():
    v, w, vm, wm = (x.clone() for x in tokens())
    vm[:, 0] = True; vm[:, 2] = False
    other = torch.where(vm[..., None], v, 100*torch.randn_like(v)).requires_grad_()
    a, b = (cico_similarity(x, w, vm, wm, mask_inner=True) for x in (v, other))
    for x, y in zip(a, b): near(x, y, 1e-12)
    sum(x.sum() for x in b).backward(); assert (other.grad[~vm] == 0).all() and (other.grad[vm] != 0).any()


def test_precisions_and_masks():
    v, w, vm, wm = tokens()
    want = cico_similarity(v, w, vm, wm)
    for kind in (torch.float16, torch.bfloat16): assert cico_similarity(v.to(kind), w.to(kind), vm, wm)[0].dtype == torch.float32
    with torch.autocast('cpu', torch.bfloat16):
        x = v.float().requires_grad_(); i2t, t2i = cico_similarity(x, w.float(), vm, wm); i2t.sum().backward()
    near(i2t.double(), want[0], 1e-5); assert x.grad.dtype == torch.float32
    for m in (vm.int(), vm.float(), vm.numpy(), vm.tolist()): near(cico_similarity(v, w, m, wm)[0], want[0], 0)
    near(cico_similarity(7*v, w*.1, vm, wm)[0], want[0], 1e-12)
    zero = v.clone(); zero[0] = 0
    assert (cico_similarity(zero, w, vm, wm)[0][0] == 0).all()
    sharp = cico_similarity(v.float(), v.float(), tau=1/70)
    assert all(x.isfinite().all() for x in sharp) and sharp[0].diag().min() > .999


@pytest.mark.parametrize('change, field', [
    (dict(video=torch.zeros(5, 6)), 'video'), (dict(video=torch.zeros(5, 6, 8, dtype=torch.long)), 'video'), (dict(video=torch.full((5, 6, 8), math.inf)), 'video'),
    (dict(text=torch.zeros(7, 4, 9)), 'text'), (dict(text=torch.zeros(0, 4, 8)), 'text'), (dict(text=[[1.]]), 'text'), (dict(video_mask=torch.ones(5, 7)), 'video_mask'),
    (dict(text_mask=torch.zeros(7, 4)), 'text_mask'), (dict(text_mask=torch.full((7, 4), .5)), 'text_mask'), (dict(tau=0), 'tau'), (dict(tau=-1), 'tau'), (dict(tau=math.nan), 'tau'), (dict(tau='x'), 'tau')], ids=str)
def test_bad_input(change, field):
    v, w, vm, wm = tokens()
    with pytest.raises(InputError) as e: cico_similarity(**{**dict(video=v, text=w, video_mask=vm, text_mask=wm), **change})
    assert (e.value.where, e.value.field) == ('cico_similarity', field)
    with pytest.raises(InputError): cico_matrix(**{**dict(video=v, text=w, video_mask=vm, text_mask=wm, device='cpu', progress=False), **change})


@pytest.mark.skipif(sys.platform != 'linux', reason='peak memory is read from /proc')
def test_memory_is_a_fraction_of_the_equation():
    script = '''
    import re, torch
    from signbook.cico import cico_pairs, cico_similarity
    torch.set_num_threads(1)
    peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])
    x = [torch.randn(64, n, 64) for n in (64, 32)]
    def run(f, n):
        v, w = (y[:n].clone().requires_grad_() for y in x)
        sum(y.sum() for y in f(v, w)).backward()
    each = lambda v, w: cico_pairs(v, w[None].expand(len(v), *w.shape))
    run(cico_similarity, 2); run(each, 2); start = peak()
    run(cico_similarity, 64); ours = peak() - start
    run(each, 64); print(ours, peak() - start)
    '''
    ours, equation = map(int, subprocess.run([sys.executable, '-c', textwrap.dedent(script)], capture_output=True, text=True, check=True).stdout.split())
    assert ours < equation/2, (ours, equation)


# large matrices

def test_matrix(tmp_path):
    v, w, vm, wm = tokens(13, 11)
    for inner in (False, True):
        i2t, t2i = (x.numpy() for x in cico_similarity(v, w, vm, wm, mask_inner=inner))
        kw = dict(device='cpu', mask_inner=inner, dtype=float, progress=False)
        for block in (1, 4, 100):
            for mix in (0, .5, .3, 1): np.testing.assert_allclose(cico_matrix(v, w, vm, wm, mix=mix, block=block, **kw), mix*i2t + (1 - mix)*t2i, atol=1e-13)
    for n, x in (('v', v.half()), ('w', w.half())): np.save(tmp_path/f'{n}.npy', x.numpy())
    stored = [np.load(tmp_path/f'{n}.npy', mmap_mode='r') for n in 'vw']
    out = cico_matrix(*stored, vm.numpy(), wm.numpy(), device='cpu', dtype=np.float16, block=5, precision='high', mask_inner=True, progress=False)
    assert out.dtype == np.float16 and torch.get_float32_matmul_precision() == 'highest'
    np.testing.assert_allclose(out, (i2t + t2i)/2, atol=5e-3)


@pytest.mark.parametrize('change, field', [(dict(block=0), 'block'), (dict(mix=1.5), 'mix'), (dict(precision='low'), 'precision'), (dict(device='tpu'), 'device'), (dict(text_mask=torch.ones(7, 5)), 'text_mask')], ids=str)
def test_matrix_bad_input(change, field):
    v, w, vm, wm = tokens()
    with pytest.raises(InputError, match=field): cico_matrix(**{**dict(video=v, text=w, video_mask=vm, text_mask=wm, device='cpu'), **change})
    assert torch.get_float32_matmul_precision() == 'highest'


def test_pooled():
    v, w, vm, wm = tokens()
    mean = torch.stack([x[m].mean(0) for x, m in zip(v, vm)]); last = torch.stack([x[m][-1] for x, m in zip(w, wm)])
    near(pooled_similarity(v, w, vm, wm, ('mean', 'last')), F.normalize(mean, dim=-1) @ F.normalize(last, dim=-1).T, 1e-12)
    near(pooled_similarity(v, w, how='cls'), F.normalize(v[:, 0], dim=-1) @ F.normalize(w[:, 0], dim=-1).T, 1e-12)
    hole = vm.clone(); hole[:, -1] = True; near(pool_tokens(v, hole, 'last'), v[:, -1], 0)
    with pytest.raises(InputError, match='pooling'): pool_tokens(v, vm, 'max')
    with pytest.raises(InputError, match='8 dimensions'): pooled_similarity(v, w[..., :5])
    near(pooled_similarity(v.float(), w, vm, wm), pooled_similarity(v, w, vm, wm), 1e-6)
    for side in ('video', 'text'):
        with pytest.raises(InputError, match=f'pooled_similarity: {side}'): pooled_similarity(**{**dict(video=v, text=w), side: v*math.nan})


@pytest.mark.parametrize('f', [lambda v, w, c: cico_pairs(v, w[:, None])[0], lambda v, w, c: pooled_similarity(v, w), lambda v, w, c: pool_tokens(v), lambda v, w, c: BagScores(v, w[0]).all(c)[0], lambda v, w, c: BagScores(v, w[0]).own(c[:, None])[1]])
def test_scores_are_in_float32_under_autocast(f):
    v, w, _, _ = tokens(5, 5); v, w, c = v.float(), w.float(), torch.randint(1, 3, (5, w.shape[1])).float(); want = f(v, w, c)
    with torch.autocast('cpu', torch.bfloat16): got = f(v, w, c)
    assert got.dtype == torch.float32; near(got, want, 1e-6)


def test_bags_need_a_word_in_every_caption_and_take_float64():
    v, w, _, _ = tokens(5, 5); bags = BagScores(v, w[0]); c = torch.ones(5, w.shape[1])
    assert bags.all(c)[0].dtype == torch.float64; c[2] = 0
    for f in (bags.all, lambda c: bags.own(c[:, None])):
        with pytest.raises(InputError, match='counts'): f(c)


# losses

def slow_nce(z, groups, same, smoothing=0.):
    total = 0.
    for i in range(len(z)):
        twins = [j for j in range(len(z)) if j != i and groups[j] == groups[i]]
        right = [i] + (twins if same == 'positive' else [])
        columns = [j for j in range(len(z)) if same != 'ignore' or j not in twins]
        p = z[i, columns].softmax(0); at = {j: p[k] for k, j in enumerate(columns)}
        total += -(1 - smoothing)*sum(at[j] for j in right).log() - smoothing*p.log().mean()
    return total/len(z)


@pytest.mark.parametrize('same', cico.SAME)
@pytest.mark.parametrize('smoothing', [0., .2])
def test_info_nce(same, smoothing):
    z, g = torch.randn(6, 6, dtype=torch.double, requires_grad=True), [3, 3, 0, 5, 3, 0]
    near(info_nce(z, g, same, smoothing), slow_nce(z, g, same, smoothing), 1e-12)
    near(symmetric_info_nce(z, g, same, smoothing), (slow_nce(z, g, same, smoothing) + slow_nce(z.T, g, same, smoothing))/2, 1e-12)
    assert torch.autograd.gradcheck(lambda x: info_nce(x, g, same, smoothing), z)
    one = info_nce(torch.zeros(3, 3, requires_grad=True), [1, 1, 1], 'ignore'); one.backward(); assert float(one.detach()) == 0
    near(info_nce(z, None, same, smoothing), F.cross_entropy(z, torch.arange(6), label_smoothing=smoothing), 1e-12)


def test_loss_with_groups():
    v, w, vm, wm = tokens(6, 6)
    g, (i2t, t2i) = [0, 1, 0, 2, 3, 3], (9*x for x in cico_similarity(v, w, vm, wm))
    for same in cico.SAME:
        near(cico_loss(v, w, vm, wm, 9., groups=g, same=same), (symmetric_info_nce(i2t, g, same) + symmetric_info_nce(t2i, g, same))/2, 1e-12)
        for mix, d in (('balance', .8), ('depart', .3)): near(cico_loss(v, w, vm, wm, 9., mix=mix, dual=d, groups=g, same=same), mix_losses(i2t, t2i, mix, d, groups=g, same=same), 1e-12)
    for bad, field in ((dict(mix='x'), 'mix'), (dict(dual=2), 'dual'), (dict(same='x'), 'same'), (dict(groups=[1]), 'groups'), (dict(groups=torch.rand(6)), 'groups'), (dict(text_aug=w[:3]), 'text_aug')):
        with pytest.raises(InputError, match=field): cico_loss(v, w, vm, wm, **bad)
    with pytest.raises(InputError, match='6 rows as in video'): cico_loss(v, w[:5])


def test_logit_scale():
    m = LogitScale(); assert m().item() == pytest.approx(1/.07)
    optimizer = torch.optim.SGD(m.parameters(), 1e3)
    for _ in range(3): optimizer.zero_grad(); (-m()).backward(); optimizer.step(); assert m().item() == pytest.approx(100)
    assert [p.ndim for p in m.parameters()] == [0]


def test_baselines_with_groups_and_extremes():
    s = torch.rand(6, 6, dtype=torch.double, requires_grad=True)
    g = [0, 0, 0, 0, 0, 0]
    for f in (lambda: hn_nce(s, groups=g), lambda: vsepp_loss(s, groups=g)):
        s.grad = None; loss = f(); loss.backward(); assert loss.item() == pytest.approx(0, abs=1e-12) and (s.grad == 0).all()
    for kw in (dict(beta=0.), dict(beta=1.), dict(alpha=0.), dict(tau=1e-3), dict(released=True), dict(groups=[0, 0, 1, 2, 3, 4])):
        s.grad = None; hn_nce(s, **kw).backward(); assert s.grad.isfinite().all()
    assert torch.autograd.gradcheck(lambda x: hn_nce(x, beta=.5, groups=[0, 0, 1, 2, 3, 4]), s)
    near(hn_nce(s, beta=0., groups=[0, 0, 1, 2, 3, 4]), 2*symmetric_info_nce(s/.07, [0, 0, 1, 2, 3, 4]), 1e-12)
    with pytest.raises(InputError): hn_nce(torch.ones(1, 1))
    rows = torch.tensor([[.5, .6, .1], [.2, .9, .2], [.7, .1, .3]], dtype=torch.double)
    assert float(vsepp_loss(rows)) == pytest.approx((.3 + 0 + .6) + (.4 + 0 + .1)) and float(vsepp_loss(rows, max_violation=False)) == pytest.approx(.3 + .6 + 0 + .4 + 0 + .1)


def test_two_processes(tmp_path):
    script = '''
    import sys, torch, torch.distributed as dist
    from signbook.cico import cico_loss
    torch.set_num_threads(1)
    dist.init_process_group('gloo'); rank = dist.get_rank()
    g = torch.Generator().manual_seed(0)
    v, w, aug = (torch.randn(5, n, 8, generator=g, dtype=torch.double) for n in (6, 4, 4))
    at = slice(0, 3) if rank == 0 else slice(3, 5)
    x = [y[at].clone().requires_grad_() for y in (v, w, aug)]
    mask = torch.arange(6) < torch.tensor([6, 3, 4, 5, 1])[:, None]
    for kw in (dict(), dict(text_aug=x[2]), dict(mask_inner=True)):
        loss = cico_loss(*x[:2], mask[at], scale=9., groups=torch.tensor([0, 1, 1, 2, 0])[at], mix='depart', dual=.3, **kw)
        (loss*len(x[0])/5).backward()
    torch.save([loss.detach(), *(y.grad for y in x)], f'{sys.argv[1]}/{rank}.pt')
    try: cico_loss(x[0], x[1][:, :4 - rank], mask[at])
    except ValueError as e: assert 'same number of tokens' in str(e)
    else: raise SystemExit(1)
    short = x[0][:, :6 - rank], x[1], mask[at][:, :6 - rank]
    try: cico_loss(*short)
    except ValueError as e: assert 'video: expected the same number of tokens' in str(e)
    else: raise SystemExit(1)
    assert cico_loss(*short, mask_inner=True).item() == cico_loss(x[0], x[1], mask[at], mask_inner=True).item()
    dist.barrier(); dist.destroy_process_group()
    '''
    port = 29500 + os.getpid() % 1000
    procs = [subprocess.Popen([sys.executable, '-c', textwrap.dedent(script), str(tmp_path)], env={**os.environ, 'RANK': str(r), 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}) for r in range(2)]
    assert [p.wait(120) for p in procs] == [0, 0]
    g = torch.Generator().manual_seed(0)
    x = [torch.randn(5, n, 8, generator=g, dtype=torch.double).requires_grad_() for n in (6, 4, 4)]
    mask = torch.arange(6) < torch.tensor([6, 3, 4, 5, 1])[:, None]
    for kw in (dict(), dict(text_aug=x[2]), dict(mask_inner=True)):
        loss = cico_loss(*x[:2], mask, scale=9., groups=torch.tensor([0, 1, 1, 2, 0]), mix='depart', dual=.3, **kw); loss.backward()
    saved = [torch.load(tmp_path/f'{r}.pt') for r in range(2)]
    for (l, *_) in saved: near(l, loss.detach(), 1e-12)
    for k, y in enumerate(x, 1): near(torch.cat([s[k] for s in saved]), y.grad, 1e-12)


# evaluation

def slow_ranks(s, groups):
    best = np.array([[s[groups == a, b].max() for b in range(s.shape[1])] for a in range(s.shape[1])])
    t2v = [sum(best[a, b] >= best[b, b] for a in range(s.shape[1])) for b in range(s.shape[1])]
    return t2v, [sum(s[i] >= s[i, groups[i]]) for i in range(len(s))]


def test_evaluation_by_hand():
    rng = np.random.default_rng(0)
    g = np.array([0, 1, 1, 2, 3, 3, 3, 4]); s = rng.normal(size=(8, 5)).round(1)
    for ties in ('pessimistic', 'official'):
        r = evaluate_retrieval(s, g, ties=ties, resamples=0)
        assert r.values == retrieval_metrics(s, g, ties) and r.intervals is None and list(r.frame()) == ['value']
    r = evaluate_retrieval(s, g)
    assert [x.tolist() for x in r.ranks.values()] == [list(map(int, x)) for x in slow_ranks(s, g)]
    for d, x in r.ranks.items():
        for m, f in (('R1', lambda v: 100*np.mean(v <= 1)), ('MRR', lambda v: 100*np.mean(1/v)), ('MedR', np.median)): assert r.intervals[d][m] == pytest.approx(bootstrap_interval(x, f))
    assert 'pessimistic' in repr(r) and '<table' in r._repr_html_()


def test_intervals_with_official_ties():
    s = np.eye(30) + np.random.default_rng(0).integers(0, 3, (30, 30))
    r = evaluate_retrieval(s, ties='official', resamples=300)
    assert len(r.ranks['t2v']) > 30 and r.tied['t2v'] > 0
    assert all(lo <= r.values[d][m] <= hi for d, ms in r.intervals.items() for m, (lo, hi) in ms.items())
    again = evaluate_retrieval(s, ties='official', resamples=300)
    assert again.intervals == r.intervals


def test_interval_covers():
    rng, hits = np.random.default_rng(1), 0
    for k in range(40):
        n = 80; s = rng.random((n, n))*.5; right = rng.random(n) < .6; s[np.arange(n), np.arange(n)] = np.where(right, 2, -1)
        lo, hi = evaluate_retrieval(s, resamples=200, seed=k).intervals['v2t']['R1']; hits += lo <= 60 <= hi
    assert hits >= 33


def test_equal_texts_get_equal_scores():
    rng = np.random.default_rng(0)
    texts = ['a b', 'c', 'A  b.', 'd', 'c!', 'a b']
    g, first = text_groups(texts); assert g.tolist() == [0, 1, 0, 2, 1, 0] and first.tolist() == [0, 1, 3]
    clean = rng.normal(size=(6, 3))[:, g]; noisy = clean + 1e-7*rng.normal(size=clean.shape)
    a, b = (evaluate_retrieval(x, texts=texts, resamples=0) for x in (clean, noisy))
    for d in DIRECTIONS: assert a.ranks[d].tolist() == b.ranks[d].tolist()
    merged = evaluate_retrieval(noisy, texts=texts, merge=True, resamples=0)
    assert merged.values == retrieval_metrics(noisy[:, first], g) and merged.ceiling['v2t']['R1'] == 100
    several = evaluate_retrieval(noisy[:, :5][[0, 1, 2, 3, 4, 0, 1]], [0, 1, 2, 3, 4, 0, 1], texts[:5], merge=True, resamples=0)
    assert several.values == retrieval_metrics(noisy[[0, 1, 2, 3, 4, 0, 1]][:, first], [0, 1, 0, 2, 1, 0, 1])


def test_ceiling():
    texts = list('aabcccd'); s = np.eye(7)[:, :]
    codes = text_groups(texts)[0]
    perfect = (codes[:, None] == codes[None])*1. + 1e-3*np.random.default_rng(0).random((7, 1))
    got, top = evaluate_retrieval(perfect, texts=texts, resamples=0), retrieval_ceiling(texts)
    assert got.values['v2t'] == top['v2t'] and got.values['t2v'] == pytest.approx(top['t2v'])
    assert top['t2v']['R1'] == pytest.approx(400/7) and top['v2t']['R1'] == pytest.approx(200/7) and retrieval_ceiling(texts, ties='official')['v2t']['R1'] == pytest.approx(400/7)
    assert retrieval_ceiling([3, 3, 4]) == retrieval_ceiling(['x', 'x', 'y']) and retrieval_ceiling(['a', 'b', 'a'], [0, 1, 2, 2])['v2t']['R1'] == 25
    assert retrieval_ceiling(['!', '?'])['t2v']['R1'] == 100
    for bad in ([], [1.5], ['a', 3], 'abc', [[1]]):
        with pytest.raises(InputError): retrieval_ceiling(bad)


def test_ceiling_of_phoenix(real):
    frame = load_corpus('phoenix14t', root=real/'phoenix14t', split='test').frame
    texts = frame['text'].tolist(); top = retrieval_ceiling(texts)
    assert (len(texts), len(text_groups(texts)[1])) == (642, 630) and round(top['t2v']['R1'], 2) == 98.13
    assert round(retrieval_ceiling(texts, ties='official')['v2t']['R1'], 2) == 98.13 and top['v2t']['R1'] < 98.13


@pytest.mark.parametrize('kw, field', [(dict(groups=[0, 1]), 'groups'), (dict(texts=['a']), 'texts'), (dict(merge=True), 'texts'), (dict(ties='x'), 'ties'), (dict(resamples=-1), 'resamples'), (dict(level=95), 'level'), (dict(groups=[0, 0, 0]), 'groups')], ids=str)
def test_evaluation_bad_input(kw, field):
    with pytest.raises(InputError, match=field): evaluate_retrieval(np.eye(3), **kw)
    for s in (np.full((3, 3), np.nan), np.full((3, 3), np.inf), np.ones(3), np.ones((3, 2))):
        with pytest.raises(InputError): evaluate_retrieval(s)


# files

def test_files(tmp_path):
    v, w, vm, wm = tokens(9, 9, seed=3)
    texts = list('abcdefgha')
    for side, x, m in (('video', v, vm), ('text', w, wm)):
        for sub, keep in (('ragged', lambda a, b: a[b]), ('pooled', lambda a, b: a[b].mean(0))):
            (tmp_path/sub/side).mkdir(parents=True)
            for i, (a, b) in enumerate(zip(x, m)): np.save(tmp_path/sub/side/f'{i}.npy', keep(a, b).numpy())
        (tmp_path/'arrays').mkdir(exist_ok=True); np.save(tmp_path/'arrays'/f'{side}.npy', x.numpy()); np.save(tmp_path/'arrays'/f'{side}_mask.npy', m.numpy())
    (tmp_path/'arrays'/'texts.txt').write_text('\n'.join(texts))
    inner, outer = (cico_matrix(v, w, vm, wm, mask_inner=m, device='cpu', progress=False) for m in (True, False))
    np.savez(tmp_path/'all.npz', similarity=inner, texts=np.array(texts), groups=np.arange(9))
    same = lambda path, s, **kw: evaluate_files(path, device='cpu', resamples=50, **kw)[0].values == evaluate_retrieval(s, texts=texts, resamples=0).values
    assert same(tmp_path/'ragged', inner, texts=texts) and same(tmp_path/'arrays', inner) and same(tmp_path/'arrays', outer, mask_inner=False) and same(str(tmp_path/'all.npz'), inner)
    assert same(tmp_path/'pooled', pooled_similarity(v, w, vm, wm).numpy(), texts=texts)
    result, figure = evaluate_files(tmp_path/'all.npz', merge=True); assert figure.axes and result.ceiling['t2v']['R1'] == 100
    np.testing.assert_allclose(load_similarity(tmp_path/'arrays', device='cpu', mask_inner=True)['similarity'], inner)


@pytest.mark.parametrize('name, make, message', [
    ('a.npy', lambda p: None, 'no such file'), ('a.mat', lambda p: None, 'no such path'), ('a.csv', lambda p: p.write_text('1'), 'another kind'), ('a.npy', lambda p: p.write_bytes(b'x'*99), 'plain numbers'),
    ('a.npy', lambda p: np.save(p, np.array([{}], object)), 'plain numbers'), ('a.npz', lambda p: np.savez(p, x=np.eye(2)), "called 'similarity'"), ('a.npz', lambda p: np.savez(p, similarity=np.array([{}], object)), 'plain numbers'),
    ('a.npy', lambda p: np.save(p, np.ones(4)), r'2 dimension'), ('d', lambda p: p.mkdir(), 'video.npy'), ('d', lambda p: (p/'video').mkdir(parents=True), 'at least one'),
    ('d', lambda p: (p.mkdir(), np.save(p/'video.npy', np.ones((3, 4))), np.save(p/'text.npy', np.ones((3, 5)))), '4 dimensions'),
    ('d', lambda p: (p.mkdir(), np.save(p/'video.npy', np.ones((3, 2, 4))), np.save(p/'text.npy', np.ones((3, 4)))), 'both')])
def test_files_bad_input(tmp_path, name, make, message):
    make(tmp_path/name)
    with pytest.raises(InputError, match=message): evaluate_files(tmp_path/name)


def test_files_are_named_and_options_are_known(tmp_path):
    s = np.eye(3); s[0, 1] = np.nan; np.save(tmp_path/'s.npy', s); np.save(tmp_path/'ok.npy', np.eye(3))
    for path, kw, message in (('s.npy', {}, 's.npy: similarity'), ('ok.npy', dict(texts=['a']), 'ok.npy: texts'), ('ok.npy', dict(blok=3), 'nearest: block'), ('ok.npy', dict(ties='x'), 'ties')):
        with pytest.raises(InputError, match=message): evaluate_files(tmp_path/path, **kw)
    d = tmp_path/'d'; d.mkdir()
    for n in ('video', 'text'): np.save(d/f'{n}.npy', np.ones((3, 2, 4), np.float32))
    np.save(d/'video_mask.npy', np.ones((3, 5)))
    with pytest.raises(InputError, match='d: video_mask'): evaluate_files(d, device='cpu')
    (d/'video_mask.npy').unlink(); (d/'texts.txt').write_text('a\nb\nc\n\n')
    with pytest.raises(InputError, match='d: texts: expected 3, one a column, found 4'): evaluate_files(d, device='cpu')
