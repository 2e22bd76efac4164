"Density: the ratio, its intervals and its cost against slow obvious versions; alignment against enumeration; files, reports and bad input."
import gzip, itertools, json, os, pickle, subprocess, sys, time, warnings
from dataclasses import replace

import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from signbook.core import InputError, load_json
from signbook.corpora import hmm_segments, load_corpus
from signbook.density import *
from signbook.density import _draws
from signbook.evidence import paper_table
from signbook.metrics import wer

METRICS = {'euclidean': 'euclidean', 'sqeuclidean': 'sqeuclidean', 'cosine': 'cosine'}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before); plt.close('all')


def slow(x, gloss, distance='euclidean', pairs='distinct', others='glosses', singles='keep'):
    x, gloss, names = np.asarray(x, float), np.asarray(gloss), sorted(set(gloss))
    if singles == 'drop': names = [n for n in names if (gloss == n).sum() > 1]
    at, out = {n: x[gloss == n] for n in names}, {}
    for g in names:
        a, rest = at[g], [at[h] for h in names if h != g]
        if len(a) < 2: continue
        within = cdist(a, a, distance); np.fill_diagonal(within, 0); within = within.ravel() if pairs == 'all' else within[~np.eye(len(a), dtype=bool)]
        between = [cdist(a, b, distance) for b in rest]
        out[g] = len(a), np.mean([d.mean() for d in between]) if others == 'glosses' else np.concatenate([d.ravel() for d in between]).mean(), within.mean()
    t = pd.DataFrame(out, ['count', 'inter', 'intra']).T
    return t.assign(ratio=t['intra']/t['inter'])


def data(seed=0, sizes=(1, 7, 2, 3, 30, 5, 6, 2, 1, 13), dim=6, tau=1., noise=1., offset=0.):
    rng = np.random.default_rng(seed); g = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return offset + tau*rng.normal(size=(len(sizes), dim))[g] + noise*rng.normal(size=(len(g), dim)), np.array([f'G{k:02d}' for k in g])


def test_equations_word_for_word():
    x, g = data(1); s = sign_density_ratio(x, g).per_gloss
    def d(a, b): return sum((p - q)**2 for p, q in zip(a, b))**.5
    def mean(v): v = list(v); return sum(v)/len(v)
    at = {k: [r for r, h in zip(x.tolist(), g) if h == k] for k in set(g)}
    for k in s.index:
        inter, intra = mean(mean(d(a, b) for a in at[k] for b in at[h]) for h in at if h != k), mean(d(a, b) for i, a in enumerate(at[k]) for j, b in enumerate(at[k]) if i != j)
        assert s.loc[k].tolist() == pytest.approx([len(at[k]), inter, intra, intra/inter], rel=1e-10)


@pytest.mark.parametrize('distance', METRICS)
@pytest.mark.parametrize('pairs,others,singles', itertools.product(('distinct', 'all'), ('glosses', 'instances'), ('keep', 'drop')))
def test_double_loop(distance, pairs, others, singles):
    x, g = data()
    kw = dict(distance=distance, pairs=pairs, others=others, singles=singles)
    want = slow(x, g, **kw)
    for block in (1, 9, 2048)[others == 'instances':]:
        s = sign_density_ratio(x, g, block=block, resamples=3, **kw)
        assert s.per_gloss.index.tolist() == want.index.tolist() and s.single == ('G00', 'G08')
        np.testing.assert_allclose(s.per_gloss.to_numpy(float), want.to_numpy(float), rtol=1e-10)
    assert s.sdr == pytest.approx(100*want['ratio'].mean(), rel=1e-12) and s.mean['inter'] == pytest.approx(want['inter'].mean())
    assert s.instances == len(g) - (2 if singles == 'drop' else 0)


@pytest.mark.parametrize('tau,noise,offset', [(1, 1, 1e4), (1, 1e-3, 0), (1, 1e-6, 0), (1, 1e-6, 1e3), (1e-3, 1, 0), (1e-9, 1e-9, 1), (1e120, 1e120, 0), (1e-120, 1e-120, 0), (1, 0, 5)])
def test_hard_numbers(tau, noise, offset):
    x, g = data(2, (20, 30, 25, 40), 24, tau, noise, offset)
    want = slow(x, g)
    for block in (40, 2048): np.testing.assert_allclose(sign_density_ratio(x, g, resamples=0, block=block).per_gloss.to_numpy(float), want.to_numpy(float), rtol=1e-10)
    if noise > 1e-7*offset and 1e-30 < tau < 1e30: np.testing.assert_allclose(sign_density_ratio(x.astype(np.float32), g, resamples=0, block=40).per_gloss.to_numpy(float), slow(x.astype(np.float32), g).to_numpy(float), rtol=1e-6)


def test_two_far_superclusters():
    rng = np.random.default_rng(3); g = np.repeat(np.arange(20), 30); x = (np.where(g % 2, 1e3, -1e3)[:, None] + rng.normal(size=(20, 16))[g] + .1*rng.normal(size=(600, 16)))
    for v, rtol in ((x, 1e-10), (x.astype(np.float32), 1e-6)): np.testing.assert_allclose(sign_density_ratio(v, g, resamples=0, block=128).per_gloss.to_numpy(float), slow(v, g).to_numpy(float), rtol=rtol)


def test_resamples_are_resamples():
    x, g = data(4, (2, 3, 5, 1, 8)); code = np.unique(g, return_inverse=True)[1]; order = np.argsort(code, kind='stable')
    s = sign_density_ratio(x, g, resamples=40, seed=7); drawn = _draws(code[order], 40, 7); d = cdist(x, x)
    means = []
    for c in drawn:
        copies = np.repeat(order, c); ratio = []
        for k in range(5):
            a = copies[code[copies] == k]
            within = [d[p, q] for p in a for q in a if p != q]
            if within: ratio.append(np.mean(within)/np.mean([d[np.ix_(a, copies[code[copies] == h])].mean() for h in range(5) if h != k]))
        if ratio: means.append(np.mean(ratio))
    np.testing.assert_allclose(s.resampled, means, rtol=1e-9)
    np.testing.assert_allclose(s.interval, np.quantile(means, [.025, .975]))
    np.testing.assert_allclose(sign_density_ratio(x.astype(np.float32), g, resamples=40, seed=7).resampled, means, rtol=1e-5)
    assert np.array_equal(s.resampled, sign_density_ratio(x, g, resamples=40, seed=7).resampled) and not np.array_equal(s.resampled, sign_density_ratio(x, g, resamples=40, seed=8).resampled)
    for kw in (dict(pairs='all'), dict(others='instances')): np.testing.assert_allclose(np.mean(sign_density_ratio(x, g, resamples=400, **kw).resampled), sign_density_ratio(x, g, **kw).mean['ratio'], rtol=.15)


def test_paired_difference_is_tighter():
    x, g = data(5, (9,)*20, 32); a, b = sign_density_ratio(x, g), sign_density_ratio(x + .3*np.random.default_rng(0).normal(size=x.shape), g)
    d = density_difference(b, a)
    assert d['low'] < d['effect'] < d['high'] and d['effect'] == pytest.approx(b.sdr - a.sdr)
    assert d['high'] - d['low'] < 100*(np.ptp(a.interval) + np.ptp(b.interval))
    with pytest.raises(InputError, match='instances: expected the same'): density_difference(a, sign_density_ratio(x[:-1], g[:-1]))
    with pytest.raises(InputError, match='resampled'): density_difference(a, sign_density_ratio(x, g, resamples=0))
    assert density_table({'a': a, 'b': b}).loc['a', 'instances'] == 180


@pytest.mark.parametrize('distance', METRICS)
def test_zero_distances(distance):
    for x in (np.full((6, 3), 7.), np.full((6, 3), .1, np.float32), np.full((6, 1), -1e30)):
        s = sign_density_ratio(x, list('AABBCC'), distance)
        assert (s.sdr, s.interval, s.collapsed) == (100., (1., 1.), True) and (s.per_gloss[['inter', 'intra']] == 0).all(axis=None)
    one = np.repeat(np.random.default_rng(0).normal(size=(3, 4)), 2, 0)
    s = sign_density_ratio(one, list('AABBCC'), distance)
    assert s.sdr == 0 and not s.collapsed and not s.per_gloss.isna().any(axis=None)
    for seed in range(5): r = np.random.default_rng(seed); assert sign_density_ratio(np.outer(r.uniform(.1, 9, 6), r.normal(size=7)), list('AABBCC'), 'cosine').sdr == 100
    assert not gloss_distances(np.ones((3, 2)), list('AAB'), distance).isna().any(axis=None)
    assert not nearest_glosses(gloss_distances(np.ones((3, 2)), list('AAB'), distance)).isna().any(axis=None)


def test_no_nan_with_few_instances():
    for sizes in ((2, 1, 1), (2, 2), (3, 1), (2,) + (1,)*30):
        for seed in range(5):
            x, g = data(seed, sizes, 3)
            s = sign_density_ratio(x, g, seed=seed)
            assert not s.per_gloss.isna().any(axis=None) and not np.isnan(s.resampled).any() and np.isfinite(s.interval).all() and s.interval[0] <= s.interval[1]


BAD = [(np.ones((4, 2)), list('AAAA'), {}, 'gloss: expected at least two glosses, found 1'), (np.ones((3, 2)), list('ABC'), {}, 'a gloss with two instances, found 3 glosses of one'),
       (np.ones((3, 2)), list('AAB'), dict(singles='drop'), 'at least two glosses with two instances'), (np.ones((0, 2)), [], {}, r'shape \(0, 2\)'), (np.ones((2, 0)), list('AB'), {}, r'shape \(2, 0\)'), (np.ones(4), list('AABB'), {}, r'shape \(4,\)'),
       (np.ones((4, 2)), list('AAB'), {}, 'gloss: expected 4 labels, one for each row of features, found 3'), (np.ones((2, 2)), ['A', np.nan], {}, r'gloss\[1\]: expected a label'),
       ([[1, 2], [np.nan, 1], [1, 1]], list('AAB'), {}, r'features\[1\]: expected finite numbers, found NaN'), ([[1, 2], [2, 1], [-np.inf, 1]], list('AAB'), {}, r'features\[2\]: expected finite numbers, found an infinity'),
       ([[1, 2], [0, 0], [2, 1]], list('AAB'), dict(distance='cosine'), r'features\[1\]: expected a vector with a direction'), ([['a'], ['b']], list('AB'), {}, 'real numbers'), (np.ones((2, 2))*1j, list('AB'), {}, 'real numbers'),
       (np.ones((3, 2)), list('AAB'), dict(distance='euclid'), 'nearest: euclidean'), (np.ones((3, 2)), list('AAB'), dict(pairs='both'), 'pairs'), (np.ones((3, 2)), list('AAB'), dict(others='x'), 'others'), (np.ones((3, 2)), list('AAB'), dict(singles=True), 'singles'),
       (np.ones((3, 2)), list('AAB'), dict(resamples=-1), 'resamples'), (np.ones((3, 2)), list('AAB'), dict(block=0), 'block'), (np.ones((3, 2)), list('AAB'), dict(level=95), 'level'), (np.ones((3, 2)), list('AAB'), dict(seed=.5), 'seed'), (np.ones((3, 2)), 'AAB', {}, 'gloss'),
       (np.ones((3, 2)), [['A'], ['A'], ['B']], {}, 'one label for each row'), (np.array([[1e200], [-1e200], [0]]), list('AAB'), dict(distance='sqeuclidean'), 'numbers whose distances are numbers'), ([[1, 2], [1]], list('AB'), {}, 'rows of one length')]


@pytest.mark.parametrize('x,gloss,kw,message', BAD)
def test_bad_input(x, gloss, kw, message):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(InputError, match=message): sign_density_ratio(x, gloss, **kw)


def test_kinds_of_input(tmp_path):
    x, g = data(6, (4, 5, 6)); x = x.astype(np.float32); want = sign_density_ratio(x, g).sdr
    np.save(tmp_path/'x.npy', x); frozen = x.copy(); frozen.setflags(write=False); back = np.asfortranarray(x)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for v in (torch.tensor(x, requires_grad=True), np.load(tmp_path/'x.npy', mmap_mode='r'), frozen, back, x[::-1][::-1], x.tolist(), x.astype('>f4'), x.astype(np.float64)): assert sign_density_ratio(v, g).sdr == pytest.approx(want, rel=1e-6)
        for v in (x.astype(np.float16), torch.tensor(x).bfloat16()): assert sign_density_ratio(v, g).sdr == pytest.approx(want, rel=2e-2)
    whole = np.round(10*x); assert sign_density_ratio(whole.astype(np.int16), g).sdr == pytest.approx(sign_density_ratio(whole, g).sdr, rel=1e-6)
    for labels in (pd.Series(g), torch.tensor([int(k[1:]) for k in g]), pd.Categorical(g), [(k,) for k in g]): assert sign_density_ratio(x, labels).sdr == pytest.approx(want, rel=1e-12)
    assert sign_density_ratio(x, [1 if k == 'G00' else k for k in g]).per_gloss.index.tolist() == [1, 'G01', 'G02']
    shuffled = np.random.default_rng(0).permutation(len(x)); assert sign_density_ratio(x[shuffled], g[shuffled]).sdr == pytest.approx(want, rel=1e-6)


def test_precision_is_the_callers_own():
    x, g = data(7, (20, 20, 20), 64); x = x.astype(np.float32); want = slow(x, g).to_numpy(float)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision('medium')
        np.testing.assert_allclose(sign_density_ratio(x, g).per_gloss.to_numpy(float), want, rtol=1e-6)
        assert torch.get_float32_matmul_precision() == 'medium'
    finally: torch.set_float32_matmul_precision(before)


def test_speed():
    rng = np.random.default_rng(0); x, g = rng.standard_normal((5000, 512), np.float32), rng.integers(0, 500, 5000)
    ours = min(_seconds(lambda: sign_density_ratio(x, g, resamples=0)) for _ in range(2)); i, j = rng.integers(0, 5000, (2, 2000)).tolist()
    def loop():
        for a, b in zip(i, j): np.linalg.norm(x[a] - x[b])
    assert _seconds(loop)*5000*4999/2/2000 > 20*ours


def _seconds(f): start = time.perf_counter(); f(); return time.perf_counter() - start


@pytest.mark.skipif(sys.platform == 'win32', reason='no peak memory')
@pytest.mark.parametrize('n,limit', [(6_000, 300), pytest.param(200_000, 1024, marks=pytest.mark.skipif(not os.environ.get('SIGNBOOK_SLOW'), reason='minutes: set SIGNBOOK_SLOW=1'))])
def test_memory(n, limit):
    code = f'import torch, json; torch.set_num_threads({1 if n < 1e5 else torch.get_num_threads()}); from signbook.density import measure_density; print(json.dumps(measure_density({n}, 512, {n//100}, resamples=20)))'
    r = json.loads(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)
    assert r['extra_mib'] < limit and r['ratio'] > 0 and 69 < r['sdr'] < 72


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_gpu():
    x, g = data(8, (30,)*40, 128)
    for v, rtol in ((x, 1e-10), (x.astype(np.float32), 1e-5)): np.testing.assert_allclose(sign_density_ratio(v, g, device='cuda', block=100).per_gloss.to_numpy(float), sign_density_ratio(x, g, device='cpu').per_gloss.to_numpy(float), rtol=rtol)
    np.testing.assert_allclose(gloss_distances(x, g, device='cuda'), gloss_distances(x, g, device='cpu'), rtol=1e-10)


@pytest.mark.parametrize('distance', METRICS)
def test_gloss_distances(distance):
    x, g = data(9); names = sorted(set(g)); d = cdist(x, x, distance)
    want = np.array([[d[np.ix_(g == a, g == b)].sum()/max(1, (g == a).sum()*(g == b).sum() - (a == b)*(g == a).sum()) for b in names] for a in names])
    for block in (1, 11, 4096):
        m = gloss_distances(x, g, distance, block=block)
        np.testing.assert_allclose(m, want, rtol=1e-10, atol=1e-13); assert m.index.tolist() == m.columns.tolist() == names
    near = nearest_glosses(m, 3); off = want[np.triu_indices(len(names), 1)]
    np.testing.assert_allclose(near['distance'], np.sort(off)[:3])
    assert len(nearest_glosses(m, 10**6)) == len(off)


# meaning

def test_readings_and_share():
    x, g = data(10, (2, 3, 5, 10)); a, b = (sign_density_ratio(x, g, pairs=p, resamples=0).per_gloss for p in ('distinct', 'all'))
    np.testing.assert_allclose(b['ratio'], a['ratio']*(a['count'] - 1)/a['count'])
    rng = np.random.default_rng(0); g = np.repeat(np.arange(200), 10)
    for tau in (.3, 1, 3):
        s = sign_density_ratio(tau*rng.normal(size=(200, 400))[g] + rng.normal(size=(2000, 400)), g, resamples=0)
        assert between_share(s.mean['ratio']) == pytest.approx(tau**2/(1 + tau**2), abs=.01)


@pytest.mark.parametrize('n', [10, 350, 5000])
def test_glosses_behind(n):
    r = np.random.default_rng(n); a = r.normal(size=n); t = stats.spearmanr(a, a + 2*r.normal(size=n))
    assert glosses_behind(t.statistic, t.pvalue)[0] == pytest.approx(n, rel=1e-4)
    found, low, high = glosses_behind(round(t.statistic, 2), t.pvalue); assert low < n < high
    for bad in (dict(rho=0, p=.1), dict(rho=1, p=.1), dict(rho=.5, p=0), dict(rho=.5, p=-2.7e-5)):
        with pytest.raises(InputError): glosses_behind(**bad)


def test_printed_p_values_share_one_number_of_glosses():
    printed = {r['name']: r['values'] for r in paper_table('signcl', 'table10')['rows']}
    ranges = np.array([glosses_behind(rho, abs(float(printed['p-value'][c]))) for c, rho in printed['Spearman rho'].items()])
    assert len(ranges) == 6 and ranges[:, 1].max() < ranges[:, 2].min() < 540


# alignment

@pytest.mark.parametrize('seed', range(40))
def test_forced_alignment_is_the_best_path(seed):
    rng = np.random.default_rng(seed); T, C, blank = rng.integers(1, 8), 3, int(rng.integers(0, 3)); p = rng.dirichlet(np.full(C, .5), T) + 1e-9
    target = rng.choice([c for c in range(C) if c != blank], rng.integers(0, 4)).tolist(); need = len(target) + sum(a == b for a, b in zip(target, target[1:]))
    lp = np.log(p/p.sum(1, keepdims=True))
    if need > T:
        with pytest.raises(InputError, match=f'need {need} frames'): ctc_forced_alignment(lp, target, blank=blank)
        return
    best = max((lp[range(T), y].sum(), y) for y in itertools.product(range(C), repeat=T) if collapse(y, blank) == target)
    a = ctc_forced_alignment(lp, target, blank=blank)
    assert a.score == pytest.approx(best[0], abs=1e-9) and a.segments[:, 0].tolist() == target
    path = np.full(T, blank)
    for (g, f, n), peak in zip(a.segments, a.frame): path[f:f + n] = g; assert peak == f + lp[f:f + n, g].argmax()
    assert tuple(path) == best[1] and collapse(path, blank) == target


@pytest.mark.parametrize('bonus', [0, 5, -5])
def test_forced_alignment_batch(bonus):
    rng = np.random.default_rng(0); n = rng.integers(30, 90, 16); z = rng.normal(size=(16, 90, 50)); z[..., 0] += bonus; lp = torch.log_softmax(torch.tensor(z, dtype=torch.float32), -1)
    targets = [rng.integers(1, 50, rng.integers(0, 12)).tolist() for _ in n]
    for b, a in enumerate(ctc_forced_alignment(lp, targets, torch.tensor(n))):
        one = ctc_forced_alignment(lp[b, :n[b]], torch.tensor(targets[b], dtype=torch.long))
        assert np.array_equal(a.segments, one.segments) and np.array_equal(a.frame, one.frame) and a.score == pytest.approx(one.score)
        assert (a.segments[:, 2] > 0).all() and (np.diff(a.segments[:, 1]) >= a.segments[:-1, 2]).all()
        grown = share_blanks(a.segments, n[b])
        if len(grown): assert grown[0, 1] == 0 and grown[:, 2].sum() == n[b] and (grown[1:, 1] == grown[:-1, 1:].sum(1)).all() and (grown[:, 1] <= a.segments[:, 1]).all() and (grown[:, 1:].sum(1) >= a.segments[:, 1:].sum(1)).all()
    assert greedy_decode(lp, n)[3] == collapse(lp[3, :n[3]].argmax(1)) and len(greedy_decode(lp)) == 16


@pytest.mark.parametrize('lp,targets,kw,message', [
    (np.zeros((4, 3)), [3], {}, r'classes in \[0, 3\)'), (np.zeros((4, 3)), [0], {}, 'other than blank 0'), (np.zeros((4, 3)), [-1], {}, 'classes'), (np.ones((4, 3)), [1], {}, 'at most 0'), (np.full((4, 3), np.nan), [1], {}, 'NaN'),
    (np.zeros((2, 3)), [1, 1], {}, 'need 3 frames'), (np.zeros((2, 4, 3)), [[1]], {}, 'targets: expected 2 lists'), (np.zeros((2, 4, 3)), [[1], [1]], dict(lengths=[4]), 'lengths'), (np.zeros((2, 4, 3)), [[1], [1]], dict(lengths=[4, 5]), 'from 1 to 4'),
    (np.array([[0, -700, -np.inf]]*3), [2], {}, 'positive probability'), (np.zeros((0, 3)), [1], {}, 'log_probs'), (np.zeros((2, 3), int), [1], {}, 'log_probs')])
def test_forced_alignment_bad(lp, targets, kw, message):
    with pytest.raises(InputError, match=message): ctc_forced_alignment(lp, targets, **kw)


def test_iou():
    assert share_blanks([[1, 2, 1], [2, 6, 2], [1, 8, 1]], 12).tolist() == [[1, 0, 4], [2, 4, 4], [1, 8, 4]]
    rng = np.random.default_rng(0)
    def cut(): at = np.sort(rng.choice(np.arange(1, 40), 5, replace=False)); return np.stack([np.arange(6), np.r_[0, at], np.diff(np.r_[0, at, 40])], 1)
    for _ in range(20):
        p, t = cut(), cut(); sets = [[set(range(f, f + n)) for _, f, n in s] for s in (p, t)]
        np.testing.assert_allclose(alignment_iou(p, t), [len(a & b)/len(a | b) for a, b in zip(*sets)])
    np.testing.assert_allclose(alignment_iou([p, t], [p, t]), 1); assert alignment_iou(np.zeros((0, 3)), np.zeros((0, 3))).size == 0
    for a, b in (([p], [t, t]), (p, t[:4]), (p, t[:, ::-1] + 1)):
        with pytest.raises(InputError): alignment_iou(a, b)


# instances

def test_instances():
    rng = np.random.default_rng(0); x = [rng.normal(size=(30, 4)) for _ in range(3)]; segments = [np.array([[k, 10*k, 10] for k in range(3)])]*3
    for pick in ('middle', 'random', 'mean'):
        f, g = gloss_instances(x, segments, pick, seed=1); assert f.shape == (9, 4) and g.tolist() == [0, 1, 2]*3
        assert np.array_equal(f, gloss_instances(x, segments, pick, seed=1)[0])
    np.testing.assert_allclose(f[4], x[1][10:20].mean(0)); assert np.array_equal(gloss_instances(x, segments)[0][4], x[1][14])
    assert not np.array_equal(gloss_instances(x, segments, 'random', seed=1)[0], gloss_instances(x, segments, 'random', seed=2)[0])
    assert gloss_instances([torch.tensor(x[0]).bfloat16()], segments[:1], names={0: 'A', 1: 'A'})[1].tolist() == ['A', 'A', '2']
    half = gloss_instances([x[0][::2]], segments[:1], stride=2, frames=[30])[0]; assert np.array_equal(half, x[0][[4, 14, 24]])
    for kw, message in ((dict(pick='best'), 'pick'), (dict(stride=0), 'stride'), (dict(frames=[30]*2), 'frames: expected 3 videos'), (dict(frames=[30, 31, 30]), 'video 1: features: expected 31 rows for 31 frames, found 30'), (dict(at=[[1, 2, 30]]*3), 'video 0: at'), (dict(at=[[1, 2]]*3), 'at: expected 3 frames')):
        with pytest.raises(InputError, match=message): gloss_instances(x, segments, **kw)
    for s, message in (([[0, 25, 6]], 'an end within 30 frames, found frames 25 to 30'), ([[0, -1, 3]], 'first frame >= 0'), ([[0, 3, 0]], 'length >= 1'), ([[0., 1., 2.]], 'integers'), ([[0, 1]], 'integers'), ('REGEN', 'integers'), ([[0, 1, 2], [3]], 'segment')):
        with pytest.raises(InputError, match=message): gloss_instances(x[:1], [s])
    with pytest.raises(InputError, match=r'numbers \(frames, D\)'): gloss_instances([x[0][:, 0]], segments[:1])


# accuracy

def test_gloss_accuracy():
    rng = np.random.default_rng(0); words = list('ABCDEF'); refs = [' '.join(rng.choice(words, rng.integers(1, 9))) for _ in range(60)]
    hyps = [' '.join(w if rng.random() > .3 else rng.choice(words) for w in r.split() if rng.random() > .1) for r in refs]
    t, e = gloss_accuracy(refs, hyps), wer(hyps, refs)
    assert t['count'].sum() == sum(map(len, map(str.split, refs))) and 100*t['correct'].sum()/t['count'].sum() == pytest.approx(100 - e['sub'] - e['del'])
    assert (gloss_accuracy(refs, refs)['accuracy'] == 1).all() and (gloss_accuracy(refs, ['']*60)['accuracy'] == 0).all()
    assert gloss_accuracy([[1, 2], []], [[1], [3]])['accuracy'].to_dict() == {'1': 1., '2': 0.}
    for bad in ((['A'], ['A', 'B']), ([''], ['A']), ('A', ['A']), (['A'], None)):
        with pytest.raises(InputError): gloss_accuracy(*bad)


def toy(n=80, seed=0):
    rng = np.random.default_rng(seed); inter, intra = rng.uniform(5, 9, n), rng.uniform(3, 6, n)
    t = pd.DataFrame(dict(count=5, inter=inter, intra=intra, ratio=intra/inter), pd.Index([f'G{k}' for k in range(n)], name='gloss'))
    return t, pd.Series(1 - t['ratio'] + .1*rng.normal(size=n), t.index)


def test_correlations():
    t, acc = toy(); c = density_correlations(t, acc.sample(frac=1, random_state=0).to_dict() | {'unknown': .5})
    for k in ('inter', 'intra', 'ratio'):
        for name, f in (('pearson', stats.pearsonr), ('spearman', stats.spearmanr)):
            r = f(t[k], acc); assert c.loc[k, name] == pytest.approx(r[0]) and c.loc[k, f'{name} p'] == pytest.approx(r[1]) and c.loc[k, f'{name} low'] < r[0] < c.loc[k, f'{name} high']
    assert (c['n'] == 80).all() and not c.isna().any(axis=None)
    few = density_correlations(t.head(4), pd.Series([0, 0, 0, 1.], t.index[:4])); assert not few.isna().any(axis=None)
    for a, message in (({'G1': 1.}, 'at least 4'), (acc*0, 'values that differ'), (acc.where(acc.index != 'G3'), "accuracy\\['G3'\\]: expected a finite number"), (pd.concat([acc, acc]), 'each gloss once'), ({'G1': 'x'}, 'accuracy'), (pd.DataFrame({'x': acc}), 'accuracy')):
        with pytest.raises(InputError, match=message): density_correlations(t, a)


def test_bins():
    t, acc = toy(); b = density_bins(t, acc)
    order = np.argsort(t['ratio'].to_numpy(), kind='stable')
    for k, part in enumerate(np.array_split(order, 9), 1): assert b.loc[k, 'density'] == pytest.approx(t['ratio'].iloc[part].mean()) and b.loc[k, 'accuracy'] == pytest.approx(acc.iloc[part].mean()) and b.loc[k, 'low'] <= b.loc[k, 'accuracy'] <= b.loc[k, 'high']
    other = toy(seed=1)[0]; ranked = density_bins(t, acc, rank_by=other); part = np.array_split(np.argsort(other['ratio'].to_numpy(), kind='stable'), 9)[0]
    assert ranked.loc[1, 'density'] == pytest.approx(t['ratio'].iloc[part].mean()) and b['glosses'].sum() == ranked['glosses'].sum() == 80
    with pytest.raises(InputError, match='at least 18'): density_bins(t.head(17), acc)
    with pytest.raises(InputError, match='at least 18'): density_bins(t, acc, rank_by=other.head(5))


# figures

def test_tsne():
    x, g = data(11, (6,)*9, 8); y = tsne(x)
    assert y.shape == (54, 2) and np.isfinite(y).all() and np.array_equal(y, tsne(x)) and np.isfinite(tsne(x[:, :1])).all() and np.isfinite(tsne(x[:5])).all() and not tsne(np.ones((9, 3))).any()
    assert np.isfinite(tsne(x*1e-30)).all()
    at, shown = tsne_sample(g, ['G03', 'G05'], most=20); assert len(at) == 20 and np.isin(g[at], shown).sum() == 12 and len(tsne_sample(g, 3)[1]) == 3
    with pytest.raises(InputError): tsne(x[:4])
    with pytest.raises(InputError): tsne_sample(g, ['REGEN'])
    with pytest.raises(InputError, match='b: expected 54 rows'): tsne_panels({'a': x, 'b': x[1:]}, g)


def test_panels_colour_the_same_glosses():
    x, g = data(12, (6,)*6, 8); fig = tsne_panels({'a': x, 'b': 2*x}, g, 3)
    colours = [[(c.get_label(), tuple(c.get_facecolor()[0]), len(c.get_offsets())) for c in ax.collections] for ax in fig.axes]
    assert len(colours) == 2 and colours[0] == colours[1] and [n for _, _, n in colours[0]] == [18, 6, 6, 6]


# files and reports

@pytest.fixture
def videos(): rng = np.random.default_rng(0); return {f'v{k}': rng.normal(size=(20, 6)).astype(np.float32) for k in range(6)}


@pytest.fixture
def segments(): return {f'v{k}': np.array([[g, 5*i, 5] for i, g in enumerate((k % 3, (k + 1) % 3, 3 + k % 2))]) for k in range(6)}


def test_feature_files(tmp_path, videos):
    (tmp_path/'npy').mkdir(); (tmp_path/'npz').mkdir(); (tmp_path/'pkl').mkdir()
    for k, x in videos.items(): np.save(tmp_path/f'npy/{k}.npy', x); np.savez(tmp_path/f'npz/{k}.npz', features=x); (tmp_path/f'pkl/{k}.pkl').write_bytes(pickle.dumps(x))
    np.savez_compressed(tmp_path/'all.npz', **videos); (tmp_path/'all.pickle.gz').write_bytes(gzip.compress(pickle.dumps(videos)))
    (tmp_path/'phoenix14t.pami0.dev').write_bytes(gzip.compress(pickle.dumps([dict(name=k, sign=x, gloss='A') for k, x in videos.items()]))); (tmp_path/'named.pkl').write_bytes(pickle.dumps({k: dict(name=k, features=x) for k, x in videos.items()}))
    (tmp_path/'npy/notes.txt').write_text('x')
    for source in ('npy', 'npz', 'pkl', 'all.npz', 'all.pickle.gz', 'phoenix14t.pami0.dev', 'named.pkl'):
        got = dict(feature_videos(tmp_path/source)); assert got.keys() == videos.keys() and all(np.array_equal(got[k], x) for k, x in videos.items())


@pytest.mark.parametrize('pack', [lambda x: x, gzip.compress], ids=['plain', 'gzip'])
def test_torch_tensors_in_pickles(tmp_path, pack):
    x = {'a': torch.randn(5, 3), 'b': torch.randn(8, 6)[1:7, 2:5], 'c': torch.randn(3, 4).T}
    (tmp_path/'t.pkl').write_bytes(pack(pickle.dumps([dict(name=k, sign=v) for k, v in x.items()])))
    got = dict(feature_videos(tmp_path))
    assert got.keys() == x.keys() and all(np.array_equal(got[k], v.numpy()) for k, v in x.items())


class Hostile:
    def __reduce__(self): return os.system, ('true',)


@pytest.mark.parametrize('name,make,message', [
    ('a.pkl', lambda: pickle.dumps({'v': Hostile()}), 'plain data'), ('a.pkl', lambda: pickle.dumps([dict(name='v', sign=torch.ones(2))]), r'float32 \(2,\)'), ('a.pkl', lambda: pickle.dumps([dict(name='v', sign=None)]), 'found NoneType'), ('a.pkl', lambda: pickle.dumps([1]), 'records with a name'), ('a.pkl', lambda: pickle.dumps('x'), 'a dict by video'),
    ('a.pkl', lambda: pickle.dumps(np.ones((2, 2)))[:-9], 'a complete pickle'), ('a.pkl', lambda: pickle.dumps({'v': np.ones((2, 2), int)}), r'int64 \(2, 2\)'), ('a.pkl', lambda: pickle.dumps({'v': [[1.]]}), 'found list'), ('a.npz', lambda: b'x', 'a .npz archive'), ('a.npy', lambda: b'x', 'header'), ('b.txt', lambda: b'x', 'at least one of')])
def test_bad_files(tmp_path, name, make, message):
    (tmp_path/name).write_bytes(make())
    with pytest.raises(InputError, match=message): list(feature_videos(tmp_path))


def test_object_arrays_are_not_unpickled(tmp_path):
    np.savez(tmp_path/'a.npz', x=np.array([Hostile()], dtype=object))
    with pytest.raises(InputError, match='dtype'): list(feature_videos(tmp_path))


def test_alignment_tables(tmp_path):
    good = pd.DataFrame(dict(name=['b', 'a', 'a'], gloss=['X', 'Y', 'X'], start=[0, 7, 0], end=[4, 9, 6], frames=[5, 10, 10])); good.to_csv(tmp_path/'a.csv', index=False)
    for source in (good, tmp_path/'a.csv', str(tmp_path/'a.csv')):
        s, names, frames = read_alignment(source)
        assert {k: v.tolist() for k, v in s.items()} == {'b': [[0, 0, 5]], 'a': [[0, 0, 7], [1, 7, 3]]} and names == {0: 'X', 1: 'Y'} and frames == {'b': 5, 'a': 10}
    for bad, message in ((good.drop(columns='end'), 'end: expected a column'), (good.assign(start=-1), 'row 1: start'), (good.assign(end=['x', 1, 2]), 'row 1: end'), (good.assign(end=0), 'row 2: end'), (good.assign(start=.5), 'start')):
        with pytest.raises(InputError, match=message): read_alignment(bad)
    with pytest.raises(InputError): read_alignment(tmp_path/'none.csv')


def test_report(tmp_path, videos, segments):
    names = dict(enumerate(['REGEN', 'WIND', 'NORD', 'MORGEN', 'SONNE'])); accuracy = dict(zip(names.values(), (.9, .5, .7, .2, .4)))
    for k, x in videos.items(): np.save(tmp_path/f'{k}.npy', x)
    r = density_report(tmp_path, segments | {'extra': segments['v0']}, accuracy, names, bins=2, out=tmp_path/'out', resamples=50)
    x, g = gloss_instances(list(videos.values()), list(segments.values()), names=names)
    assert r.density.per_gloss.equals(sign_density_ratio(x, g, resamples=50).per_gloss) and r.unmatched == ('extra',) and r.videos == 6 and r.notes == ()
    made = load_json(tmp_path/'out/summary.json'); assert made['SDR'] == r.density.sdr and made['unmatched videos'] == 1
    assert sorted(p.name for p in (tmp_path/'out').iterdir()) == ['bins.csv', 'bins.png', 'correlations.csv', 'correlations.png', 'density.png', 'neighbours.csv', 'per_gloss.csv', 'summary.json', 'tsne.png']
    for f in ('per_gloss', 'correlations', 'bins', 'neighbours'): assert not pd.read_csv(tmp_path/f'out/{f}.csv').isna().any(axis=None)
    assert 'SDR' in r._repr_html_() and 'SDR' in r.density._repr_html_()


def test_report_bad(videos, segments):
    for kw, message in ((dict(alignment=segments | {'v2': [[0, 18, 3]]}), 'v2: segments'), (dict(frames={'v3': 24}), 'v3: features: expected 24 rows for 24 frames, found 20'), (dict(alignment={'w': segments['v0']}), 'share'), (dict(pick='best'), 'pick'), (dict(alignment=dict.fromkeys(videos, [])), 'at least one segment'),
                        (dict(features=videos | {'v4': videos['v4'][:, :3]}), 'v4: features: expected 6 columns'), (dict(features=videos | {'v1': videos['v1']*np.nan}), 'finite'), (dict(distance='manhattan'), 'distance'), (dict(alignment=dict.fromkeys(videos, [[1, 0, 5]])), 'two glosses')):
        with pytest.raises(InputError, match=message): density_report(**(dict(features=videos, alignment=segments) | kw))
    r = density_report(videos, segments, {'0': 1., '1': 1.}, resamples=0); assert r.correlations is None and len(r.notes) == 2 and set(r.figures()) == {'density', 'tsne'}
    flat = density_report({k: 0*x for k, x in videos.items()}, segments, dict.fromkeys('01234', .5), bins=2); assert flat.density.sdr == 100 and len(flat.notes) == 1 and flat.figures()
    strided = density_report({k: x[::4] for k, x in videos.items()}, segments, stride=4, frames=dict.fromkeys(videos, 20), pick='mean'); assert strided.density.instances == 18


def test_hmm_states():
    states = np.repeat([0, 4, 5, 6, 3172, 7, 8, 9, 4], 2); s = hmm_segments(states)
    assert chosen_frames(s).tolist() == [4, 12, 16] and check_segments(s, frames=len(states)).tolist() == s.tolist()


def test_phoenix(real):
    labels, skeletons = load_corpus('phoenix14t', real/'phoenix14t'), load_corpus('phoenix14t-skels', real/'phoenix14t-skels')
    poses = {n: p.reshape(len(p), -1) for n, p in zip(skeletons.frame['name'], skeletons.poses)}
    alignment, frames = ({n: v for n, v in zip(labels.frame['name'], c) if n in poses} for c in (labels.segments, labels.frame['frames']))
    r = density_report(poses, alignment, names=labels.gloss_ids, frames=frames)
    assert r.videos == 15 and not r.unmatched and r.density.instances == sum(map(len, alignment.values())) and 0 < r.density.sdr < 150 and 'REGEN' in r.density.per_gloss.index
    x, g = gloss_instances(list(poses.values()), [alignment[n] for n in poses], names=labels.gloss_ids)
    np.testing.assert_allclose(r.density.per_gloss.to_numpy(float), slow(x, g).to_numpy(float), rtol=1e-5)
