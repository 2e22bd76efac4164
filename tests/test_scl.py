"SCL-SLT: trajectories and classes by slow versions, pair selection against an obvious one, ranks, exclusion, loss, LoRA."
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.utils.data import DataLoader, TensorDataset

from signbook import scl
from signbook.core import InputError
from signbook.gfslt import GFSLTData, build_pieces, gfslt_config, translate_loss
from signbook.scl import CLASSES, PairSelectionSampler, Trajectories
from signbook.training import FitConfig, fit


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trajectories(k=4, n=30, seed=0):
    g = np.random.default_rng(seed)
    return Trajectories((g.random((k, n, n))*2 - 1).astype(np.float32), tuple(range(1, k + 1)))


# trajectories

def test_blocks_do_not_change_the_similarities(tmp_path):
    g = torch.Generator().manual_seed(0); v, t = torch.randn(9, 6, 8, generator=g), torch.randn(9, 5, 8, generator=g)
    vm, tm = torch.arange(6) < torch.randint(1, 7, (9, 1), generator=g), torch.arange(5) < torch.randint(1, 6, (9, 1), generator=g)
    for how in scl.AGGREGATIONS:
        whole = scl.pair_similarity(v, t, vm, tm, how).numpy(); on_disk = scl.new_trajectories((1, 2), 9, tmp_path/f'{how}.npy')
        scl.fill_similarity(on_disk.s[1], v, t, vm, tm, how, block=4, device='cpu'); on_disk.s.flush()
        assert np.abs(np.load(tmp_path/f'{how}.npy')[1] - whole).max() < 1e-3 and on_disk.s.dtype == np.float16


@pytest.mark.parametrize('epochs', [(1, 2), (0, 5, 10, 15), (1, 2, 4, 8, 16)])
def test_hat_is_the_end_of_a_fitted_line(epochs):
    y = np.random.default_rng(len(epochs)).standard_normal((len(epochs), 20)); line = np.polyfit(epochs, y, 1)
    for w, e in zip(scl.end_weights(epochs), (epochs[0], epochs[-1])): assert np.allclose(w @ y, line[0]*e + line[1])
    assert np.allclose(scl.end_weights(epochs, 'endpoint') @ y, y[[0, -1]])


@pytest.mark.parametrize('hat', scl.HATS)
def test_delta_and_shares_by_a_loop_over_pairs(hat):
    t = trajectories(); d = scl.delta_of(t, hat); w = scl.end_weights(t.epochs, hat); cut = scl.median_level(t, hat); count = dict.fromkeys(CLASSES, 0)
    for i in range(t.n):
        for j in range(t.n):
            a, b = (float(sum(w[e, k]*t.s[k, i, j] for k in range(4))) for e in (0, 1)); assert abs(d[i, j] - (b - a)) < 1e-5
            if i != j: count[CLASSES[0 if b - a < -.3 else 2 if b - a > .3 else 1 if (a + b)/2 >= cut else 3]] += 1
    got = scl.class_shares(t, .3, cut, hat=hat)
    assert got == pytest.approx({k: 100*v/(t.n*(t.n - 1)) for k, v in count.items()})
    middle = np.einsum('ek,kij->ij', w, t.s)/2; assert cut == pytest.approx(np.median(middle[~np.eye(t.n, dtype=bool)]), abs=1e-6)


def test_few_numbers_at_a_time_give_the_same(monkeypatch):
    t = trajectories(3, 40); whole = scl.delta_of(t), scl.class_shares(t)
    monkeypatch.setattr(Trajectories, 'blocks', lambda self, size=None, f=Trajectories.blocks: f(self, 3*40*7))
    assert (scl.delta_of(t) == whole[0]).all() and scl.class_shares(t) == whole[1]
    assert abs(scl.median_level(t, most=400) - scl.median_level(t)) < .2


def test_classes_narrowed_and_thinned():
    t = trajectories(6); half = lambda at: np.broadcast_to(np.arange(t.n) < 15, (at.stop - at.start, t.n))
    assert sum(scl.class_shares(t, among=half).values()) == pytest.approx(100) and scl.class_shares(t, among=half) != scl.class_shares(t)
    assert scl.thinned(t, 3).epochs == (3, 6) and (scl.thinned(t, 3).s == t.s[[2, 5]]).all()
    for bad in (lambda: scl.thinned(t, 4), lambda: scl.end_weights((3,)), lambda: scl.end_weights((1, 2), 'mean'), lambda: Trajectories(t.s, (1, 2)), lambda: Trajectories(t.s[:, :3], range(6))):
        with pytest.raises(InputError): bad()


def test_unrecorded_checkpoints_are_refused_and_files_named(tmp_path):
    t = scl.new_trajectories((0, 5, 10), 4, tmp_path/'s.npy'); t.s[:2] = .3
    for f in (scl.delta_of, scl.class_shares, scl.median_level, lambda t: PairSelectionSampler(t, 2)):
        with pytest.raises(InputError, match=r's\[2\]: expected a recorded checkpoint of epoch 10'): f(t)
    t.s[2] = .1; assert (scl.delta_of(t, 'endpoint') < -.19).all(); t.s[2, 3, 3] = np.nan
    with pytest.raises(InputError, match='epoch 10'): scl.delta_of(t)
    (tmp_path/'empty.npy').write_bytes(b''); np.savez(tmp_path/'z.npz', s=np.zeros((2, 3, 3))); np.save(tmp_path/'flat.npy', np.zeros((2, 3, 4)))
    for name in ('empty.npy', 'z.npz', 'flat.npy', 'none.npy'):
        with pytest.raises(InputError, match=name): scl.load_trajectories(tmp_path/name, (1, 2))


def test_thinned_is_a_view_where_it_can_be():
    t = trajectories(9)
    for interval, want in ((2, [1, 3, 5, 7]), (3, [2, 5, 8]), (1, range(9))):
        thin = scl.thinned(t, interval); assert np.shares_memory(thin.s, t.s) and (thin.s == t.s[list(want)]).all() and (scl.delta_of(thin) == scl.delta_of(Trajectories(t.s[list(want)].copy(), thin.epochs))).all()
    uneven = Trajectories(t.s[:4], (2, 3, 4, 8)); assert (scl.thinned(uneven, 2).s == t.s[[0, 2, 3]]).all()
    with pytest.raises(InputError, match='interval'): scl.thinned(t, 0)


@pytest.mark.parametrize('config, epochs, message', [(FitConfig(epochs=10, every=5), (0, 5, 7), '7'), (FitConfig(epochs=10), (0, 11), '11'), (FitConfig(epochs=10, every=5, max_steps=3), (5, 10), 'max_steps')], ids=str)
def test_a_recorder_knows_what_it_will_not_see(config, epochs, message):
    with pytest.raises(InputError, match=message): scl.Recorder(scl.new_trajectories(epochs, 3), None, config)


def test_a_recorder_files_under_the_epoch_and_judges_as_fit_does():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)); seen = []
    def encode(m): seen.append((m.training, torch.is_grad_enabled())); x = torch.ones(3, 1, 2); return x, x, None, None
    t = scl.new_trajectories((0, 2, 5), 3); r = scl.Recorder(t, encode, FitConfig(epochs=5, every=2), device='cpu').start(model)
    assert seen == [(False, False)] and model.training and [r(model), r.epoch, r(model), r.epoch, r(model), r.epoch] == [{}, 2, {}, 4, {}, 5]
    assert not np.isnan(t.s).any() and len(seen) == 3


def test_drift_share_by_least_squares():
    g = np.random.default_rng(2); n = 12; d = g.standard_normal((n, n)) + 2*g.standard_normal((n, 1)) + g.standard_normal(n); i, j = np.nonzero(~np.eye(n, dtype=bool))
    X = np.concatenate([np.eye(n)[i], np.eye(n)[j]], 1); y = d[i, j] - d[i, j].mean(); rest = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    assert scl.drift_share(d, 100) == pytest.approx(1 - rest @ rest/(y @ y), abs=1e-6) and scl.drift_share(d + 5, 100) == pytest.approx(scl.drift_share(d, 100), abs=1e-6)


# pair selection

def obvious(delta, n, size, q, rng, apart=None, omega=.05, pick='quantile', drop_last=False):
    "By sorting, with sums from scratch."
    order, noise, left, out = rng.permutation(n), rng.random(n), set(range(n)), []
    for s in order:
        if s not in left: continue
        if drop_last and len(left) < size: break
        batch = [int(s)]; left.remove(s)
        while len(batch) < size and left:
            able = [u for u in left if apart is None or not any(apart[u, v] for v in batch)] or list(left)
            score = {u: sum(delta[u, v] + delta[v, u] for v in batch) for u in able}; u = noise[n - len(left) - 1]
            r = int(u*len(able)) if q is None else (len(able) - 1)*(u < q) if pick == 'mixture' else min(max(round(q*(len(able) - 1) + (2*u - 1)*omega*len(able)), 0), len(able) - 1)
            value = sorted(score.values())[r]; batch.append(sorted(able)[r] if q is None else min(i for i in able if score[i] == value)); left.remove(batch[-1])
        out.append(batch)
    return out


@pytest.mark.parametrize('schedule', list(scl.SCHEDULES))
@pytest.mark.parametrize('options', [{}, dict(omega=0.), dict(omega=.3), dict(pick='mixture'), dict(drop_last=True)], ids=str)
def test_selection_is_the_obvious_one(schedule, options):
    g = np.random.default_rng(5); n = 61; d = g.integers(-64, 65, (n, n))/64; groups = g.integers(0, 15, n)
    for exclude in (None, groups):
        sampler = PairSelectionSampler(d, 8, schedule, exclude, seed=3, epochs=5, **options)
        for e in (0, 3):
            sampler.set_epoch(e); q = scl.quantile_at(schedule, e, 5)
            assert list(sampler) == obvious(d, n, 8, q, np.random.default_rng([3, e]), None if exclude is None else groups[:, None] == groups, **options)


def test_an_epoch_holds_each_sample_once_and_repeats_itself():
    d = np.random.default_rng(0).standard_normal((100, 100))
    a, b = (PairSelectionSampler(d, 16, seed=s, epochs=4) for s in (0, 1))
    assert sorted(sum(a, [])) == list(range(100)) and list(a) == list(a) and list(a) != list(b) and len(a) == len(list(a)) == 7
    last = PairSelectionSampler(d, 16, epochs=4, drop_last=True); assert len(last) == len(list(last)) == 6 and {len(x) for x in last} == {16}
    small = PairSelectionSampler(d, 16, epochs=4, pool=5); assert sorted(sum(small, [])) == list(range(100)) and list(small) == list(small) and list(small) != list(a)
    assert list(PairSelectionSampler(d, 16, epochs=4, pool=100)) == list(a)


@pytest.mark.parametrize('make', [lambda s: PairSelectionSampler(None, 8, 'random', seed=s, n=200), lambda s: PairSelectionSampler(np.zeros((200, 200)), 8, 'random', seed=s)])
def test_random_order_is_random_without_scores(make):
    met = np.zeros((200, 200))
    for seed in range(40):
        for b in make(seed): met[np.ix_(b, b)] += 1
    near = np.abs(np.subtract.outer(np.arange(200), np.arange(200)))
    assert abs(met[(near > 0) & (near < 8)].mean() - 40*7/199) < .2 and abs(met[near > 150].mean() - 40*7/199) < .2


def test_the_first_members_of_hard_and_easy_are_the_extremes():
    d = np.random.default_rng(1).standard_normal((50, 50)); s = d + d.T; np.fill_diagonal(s, 0)
    for schedule, best in (('hard', np.argmax), ('easy', np.argmin)):
        a, b, c = next(iter(PairSelectionSampler(d, 3, schedule, omega=0.)))
        rest = [u for u in range(50) if u != a]; assert b == rest[best(s[a, rest])]
        rest.remove(b); assert c == rest[best(s[a, rest] + s[b, rest])]


def test_harder_schedules_have_higher_scores():
    d = np.random.default_rng(2).standard_normal((300, 300)); mean = lambda name, e: np.mean([scl.batch_score(d, b) for b in _at(PairSelectionSampler(d, 10, name, epochs=10), e)])
    easy, linear, log, hard = (mean(n, 3) for n in ('easy', 'linear', 'log', 'hard'))
    assert easy < linear < log < hard and mean('log', 9) > mean('log', 0) and abs(mean('random', 3)) < .2*hard


def _at(sampler, epoch): sampler.set_epoch(epoch); return list(sampler)


@pytest.mark.parametrize('form', ['groups', 'dense', 'sparse', 'one-sided'])
def test_excluded_texts_never_meet_where_they_can_be_kept_apart(form):
    groups = np.repeat(np.arange(20), 3); same = (groups[:, None] == groups) & ~np.eye(60, dtype=bool); d = same.astype(float) # the hard end wants them together
    exclude = dict(groups=groups, dense=same, sparse=sp.coo_matrix(same), **{'one-sided': np.triu(same)})[form]
    free, kept = PairSelectionSampler(d, 4, 'hard'), PairSelectionSampler(d, 4, 'hard', exclude)
    assert scl.meetings(free, groups) > 1 and list(kept) == list(PairSelectionSampler(d, 4, 'hard', groups)) and kept.violations == round(scl.meetings(kept, groups)*15) <= 3
    crowd = PairSelectionSampler(np.zeros((6, 6)), 3, 'hard', np.zeros(6, int)); assert sorted(sum(crowd, [])) == list(range(6)) and crowd.violations == 4


def test_near_texts_by_a_loop():
    g = np.random.default_rng(0); texts = [' '.join(g.choice(list('abcdef'), 4)) for _ in range(60)]
    for overlap in (.5, .75, 1.):
        want = [[i != j and len(a & b)/len(a | b) >= overlap - 1e-9 for j, b in enumerate(map(set, map(str.split, texts)))] for i, a in enumerate(map(set, map(str.split, texts)))]
        assert (scl.near_texts(texts, overlap, block=13).toarray() == np.array(want)).all()
    assert scl.near_texts(['', '.', 'a']).toarray().sum() == 2


def test_a_dataloader_takes_it_and_ranks_share_a_batch():
    d = np.random.default_rng(0).standard_normal((40, 40)); batches = list(PairSelectionSampler(d, 8))
    assert [b[0].tolist() for b in DataLoader(TensorDataset(torch.arange(40)), batch_sampler=PairSelectionSampler(d, 8))] == batches
    parts = [list(PairSelectionSampler(d, 8, share=(r, 3))) for r in range(3)]
    assert [sum(p, []) for p in zip(*parts)] == batches and {len(p) for p in parts[0]} == {3}


def test_bad_input_says_where():
    d = np.zeros((4, 4))
    for bad, word in ((lambda: PairSelectionSampler(d[:3], 2), 'delta'), (lambda: PairSelectionSampler(d*np.nan, 2), 'finite'), (lambda: PairSelectionSampler(d, 2, 'cubic'), 'schedule'), (lambda: PairSelectionSampler(d, 0), 'batch_size'),
                      (lambda: PairSelectionSampler(d, 2, omega=2.), 'omega'), (lambda: PairSelectionSampler(d, 2, pool=0), 'pool'), (lambda: PairSelectionSampler(d, 2, exclude=np.zeros(3, int)), '4 samples'), (lambda: PairSelectionSampler(d, 2, exclude=np.zeros(4)), 'exclude'),
                      (lambda: PairSelectionSampler(None, 2), 'number of samples'), (lambda: PairSelectionSampler(d, 2, pick='best'), 'pick')):
        with pytest.raises(InputError, match=word): bad()


def test_half_precision_and_its_memory():
    d = np.random.default_rng(0).standard_normal((70, 70)); s = scl.symmetric(d, np.float16, 16)
    assert s.dtype == np.float16 and np.abs(s - s.T).max() == 0 and np.abs(s + np.diag(2*np.diag(d)) - d - d.T).max() < .01
    assert sorted(sum(PairSelectionSampler(d, 8, dtype=np.float16), [])) == list(range(70))


def test_cost_of_a_pick_grows_no_faster_than_the_pool():
    def cost(n):
        s = PairSelectionSampler(None, 16, 'log', n=n); s.rows = np.random.default_rng(0).random((n, n), np.float32); took = []
        for _ in range(3): start = time.process_time(); list(s); took.append(time.process_time() - start)
        return min(took)/n
    assert cost(3000) < 12*cost(1000) # 3 if all of it grew


def test_online_goes_by_what_changed_since_the_first_epoch():
    now = iter(np.random.default_rng(0).standard_normal((3, 30, 30))); seen = []
    def similarity(): seen.append(next(now)); return seen[-1]
    s = scl.OnlineSelectionSampler(similarity, 30, 6, 'hard', omega=0.)
    assert _at(s, 0) == _at(PairSelectionSampler(None, 6, 'random', n=30), 0) and len(seen) == 1
    assert _at(s, 1) == _at(PairSelectionSampler(seen[1] - seen[0], 6, 'hard', omega=0.), 1)
    assert _at(s, 2) == _at(PairSelectionSampler(seen[2] - seen[0], 6, 'hard', omega=0.), 2)
    fixed = np.random.default_rng(1).standard_normal((30, 30)); level = scl.OnlineSelectionSampler(lambda: fixed, 30, 6, 'hard', omega=0., score='level')
    _at(level, 0); assert _at(level, 1) == _at(PairSelectionSampler(fixed, 6, 'hard', omega=0.), 1)


def test_online_begins_anew_with_epoch_0():
    same = np.random.default_rng(0).standard_normal((2, 30, 30)); now = [same[0]]; s = scl.OnlineSelectionSampler(lambda: now[0], 30, 6, 'hard', omega=0.)
    with pytest.raises(InputError, match='begin at 0'): s.set_epoch(3)
    plain = _at(PairSelectionSampler(None, 6, 'random', n=30), 0); assert _at(s, 0) == plain and _at(s, 0) == plain
    now[0] = same[1]; _at(s, 1); assert _at(s, 0) == plain
    now[0] = same[0]; assert _at(s, 1) == _at(PairSelectionSampler(same[0] - same[1], 6, 'hard', omega=0.), 1)
    level = scl.OnlineSelectionSampler(lambda: now[0], 30, 6, 'hard', score='level'); _at(level, 4); assert _at(level, 0) == plain


@pytest.mark.parametrize('n, size, share, ok', [(9, 4, (1, 2), False), (10, 4, (1, 2), True), (8, 2, (0, 3), False), (8, 4, (2, 2), False)])
def test_no_rank_gets_an_empty_batch(n, size, share, ok):
    if ok: assert all(PairSelectionSampler(None, size, n=n, share=share)); return
    with pytest.raises(InputError, match='share'): PairSelectionSampler(None, size, n=n, share=share)


# model

TEXTS = ['rain in the north', 'sun', 'rain in the north', 'snow and wind in the south', 'sun and wind']


def model_and_batch(how='cico', seed=0, **options):
    pieces = build_pieces(TEXTS, 50); g = np.random.default_rng(0); data = GFSLTData([g.standard_normal((9 + 3*i, 6)).astype(np.float32) for i in range(5)], TEXTS, pieces)
    torch.manual_seed(seed); m = scl.SCLSLT(gfslt_config('smoke', frames='pose', inputs=6, widths=(8,), dim=32, features=16, conv=16, ffn=32), len(pieces), how, **options)
    return m, data, lambda i: data(i) | {'groups': torch.tensor([0, 1, 0, 2, 3])[i]}


@pytest.mark.parametrize('how', scl.AGGREGATIONS)
def test_a_pair_is_scored_alike_alone_and_in_company(how):
    m, _, batch = model_and_batch(how); m.eval()
    s = scl.pair_similarity(*m.tokens(batch(np.arange(5))), how=how).detach()
    for i in range(5): assert scl.pair_similarity(*m.tokens(batch(np.array([i]))), how=how).item() == pytest.approx(s[i, i].item(), abs=1e-5)


def test_loss_has_its_two_parts_and_their_weights():
    m, _, batch = model_and_batch(); m.eval(); b = batch(np.arange(5))
    total, logs = scl.scl_loss(2., 3.)(m, b); assert total.item() == pytest.approx((2*logs['contrast'] + 3*logs['translation']).item(), rel=1e-5)
    assert logs['translation'].item() == pytest.approx(translate_loss(m, b)[0].item(), rel=1e-6)
    assert set(scl.scl_loss(0.)(m, b)[1]) == {'translation'} and set(scl.scl_loss(translation=0.)(m, b)[1]) == {'contrast'}
    assert scl.scl_loss(same='ignore')(m, b)[1]['contrast'] < logs['contrast']


def test_contrast_learns_to_match():
    m, _, batch = model_and_batch(); accuracy = lambda: (scl.pair_similarity(*m.eval().tokens(batch(np.arange(1, 5)))).argmax(1) == torch.arange(4)).float().mean()
    fit(m, scl.scl_loss(same='ignore'), batch, 5, FitConfig(epochs=60, batch_size=5, lr=5e-3), batches=PairSelectionSampler(np.zeros((5, 5)), 5, epochs=60), progress=False)
    assert accuracy() == 1


def test_lora_changes_nothing_at_first_and_merges():
    m, _, batch = model_and_batch(); m.eval(); b = batch(np.arange(5)); before = m(b)
    assert scl.add_lora(m.visual.encoder, rank=2, alpha=8.) == 2 and torch.equal(m(b), before)
    fit(m, scl.scl_loss(), batch, 5, FitConfig(epochs=3, batch_size=5, lr=1e-2), progress=False)
    lora = m.visual.encoder.layers[0].self_attn.q_proj; assert lora.up.abs().sum() > 0 and lora.factor == 4 and not lora.base.weight.requires_grad
    after = m(b); second = scl.second_stage(m).eval(); assert torch.allclose(second(b), after, atol=1e-4) and all(p.requires_grad for p in second.parameters()) and not hasattr(second, 'text')
    with pytest.raises(InputError, match='names'): scl.add_lora(m, ('nothing',))


def test_frozen_text_encoder_stays_as_it_is():
    m, _, batch = model_and_batch(frozen=True); before = {k: v.clone() for k, v in m.text.state_dict().items()}; out = m.text_out.weight.detach().clone()
    fit(m, scl.scl_loss(), batch, 5, FitConfig(epochs=2, batch_size=5), progress=False)
    assert all(torch.equal(v, before[k]) for k, v in m.text.state_dict().items()) and not torch.equal(out, m.text_out.weight)


def test_two_ranks_have_the_loss_of_one(tmp_path):
    script = '''
    import sys, numpy as np, torch, torch.distributed as dist
    sys.path.insert(0, sys.argv[2])
    from test_scl import model_and_batch
    from signbook.scl import scl_loss
    torch.set_num_threads(1)
    dist.init_process_group('gloo'); rank = dist.get_rank()
    m, _, batch = model_and_batch(); m.eval(); at = np.arange(5)[:3] if rank == 0 else np.arange(5)[3:]
    loss, logs = scl_loss(same='ignore')(m, batch(at)); (loss*len(at)/5).backward()
    torch.save((logs['contrast'], m.video_out.weight.grad, m.text_out.weight.grad), f'{sys.argv[1]}/{rank}.pt')
    dist.barrier(); dist.destroy_process_group()
    '''
    port = 30500 + os.getpid() % 1000
    procs = [subprocess.Popen([sys.executable, '-c', textwrap.dedent(script), str(tmp_path), os.path.dirname(__file__)], env={**os.environ, 'RANK': str(r), 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}) for r in range(2)]
    assert [p.wait(120) for p in procs] == [0, 0]
    m, _, batch = model_and_batch(); m.eval(); loss, logs = scl.scl_loss(same='ignore')(m, batch(np.arange(5))); loss.backward()
    found = [torch.load(tmp_path/f'{r}.pt') for r in range(2)]
    assert all(f[0].item() == pytest.approx(logs['contrast'].item(), abs=1e-5) for f in found)
    for k, p in ((1, m.video_out), (2, m.text_out)): assert torch.allclose(found[0][k] + found[1][k], p.weight.grad, atol=1e-5)
