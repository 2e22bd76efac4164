"SAN tables: pieces by hand, tables against SignWorld's truth, cells and claims, a small unit from end to end, and CiCo's features from files."
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from signbook.core import InputError
from signbook.corpora import CorpusError
from signbook.experiment import Outcome, compute
from signbook.san import FineSet, Signs
from signbook.signworld import articulation_distance, sentences
from signbook.tables import san as st
from signbook.training import FitConfig

SMALL = st.Data(glosses=60, sentences=(60, 12, 16), every=8, tokens=12)
QUICK = st.Training(SMALL, st.Net(dim=16), FitConfig(epochs=2, batch_size=32, lr=3e-3, every=1), FitConfig(epochs=1, batch_size=32, lr=3e-3))


@pytest.fixture(autouse=True)
def here(tmp_path_factory, monkeypatch):
    "Outputs in one folder for the whole file, and one thread."
    monkeypatch.setenv('SIGNBOOK_OUTPUTS', str(tmp_path_factory.getbasetemp()/'san'))
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def videos(): return st.videos_of(SMALL, 3)


@pytest.fixture
def made(): return compute(st.mining, st.Mining(QUICK, ((.9, .7),)), 3).metrics


def test_features_are_standardised_and_padding_is_zero(videos):
    real = torch.arange(videos.x.shape[1]) < videos.lengths[:, None]
    assert videos.x.shape[0] == len(videos.texts) == 88 and videos.x.shape[1] <= 12 and (videos.x[~real] == 0).all()
    train = torch.tensor(videos.split == 'train'); seen = videos.x[train][real[train]]
    assert seen.mean(0).abs().max() < .2 and (videos.x.abs() <= 8).all()
    assert videos.texts == [s.text for s in sentences(3, 0, 88, 40)]


def test_pose_features_do_not_depend_on_place_or_size():
    g = np.random.default_rng(0); pose = g.normal(size=(9, 75, 3)).astype(np.float32)
    pose[:, 11], pose[:, 12] = (1, 0, 0), (-1, 0, 0)
    a, b = st.pose_features(pose, 2), st.pose_features(3*pose + 5, 2)
    assert a.shape == (5, 160) and np.allclose(a, b, atol=1e-4) and (a[-1, -38:] == 0).all()
    assert st.spread(5, 9).tolist() == [0, 1, 2, 3, 4] and st.spread(9, 3).tolist() == [0, 4, 8]


def test_truth_by_the_lexicon(made, videos):
    world = st.world_of(SMALL, 3); truth = st.truth_of(SMALL, 3, st.names_of(videos)); d = articulation_distance(world)
    own = dict(zip(truth.words, truth.gloss)); signs = {tuple(sorted(p[:2])) for p in (*world.lexicon.look_alikes, *world.lexicon.minimal_pairs)}
    assert truth.pairs and all(tuple(sorted((own[a], own[b]))) in signs for a, b in truth.pairs) and all(own[a] == own[b] for a, b in truth.same)
    far = [d[own[a], own[b]] for i, a in enumerate(truth.words) for b in truth.words[i+1:] if own[a] != own[b]]
    assert max(d[own[a], own[b]] for a, b in truth.near) <= np.quantile(far, .1) + 1e-12
    tables = st.true_tables(truth, 40)
    assert st.quality(tables['alike'], truth)['precision'] == 100 and st.quality(tables['alike'], truth)['same'] == 0
    for w, row in tables['nearest'].items(): assert row[0] == min((o for o in truth.words if own[o] != own[w]), key=lambda o: d[own[w], own[o]]) or np.isclose(d[own[w], own[row[0]]], min(d[own[w], own[o]] for o in truth.words if own[o] != own[w]))


def test_keywords_and_restricted_tables():
    assert st.keywords(['a b', 'a b', 'a c', 'a'], .5) == {'b'} and st.only(dict(a='bcd', x='a'), set('acd'), 1) == dict(a=('c',))


@pytest.mark.parametrize('kind', ['token', 'pooled'])
def test_own_captions_score_as_in_the_matrix(videos, kind):
    torch.manual_seed(0); model = st.Retriever(st.Net(kind, 16), 160, st.names_of(videos), SMALL).eval(); index = st.at(videos, 'test')
    s = st.coarse_scores(model, videos, index, batch=5); v, vm, t, tm = st.encoded(model, videos, index, batch=5)
    slow = sum(st.cico_similarity(v, t, vm, tm, mask_inner=True))/2 if kind == 'token' else st._pooled_scores(v, vm, st.pool_tokens(t, tm))[0]
    assert np.allclose(s, slow.detach().numpy(), atol=1e-5)
    rows = [[videos.texts[i], videos.texts[j]] for i, j in zip(index, np.roll(index, 1))]
    for k, (a, b) in enumerate(st.scores_of(model, videos, index, rows, batch=7)): assert a == pytest.approx(float(s[k, k]), abs=1e-5) and b == pytest.approx(float(s[k, k - 1]), abs=1e-5)


def test_words_without_context_have_the_gradients_of_tokens(videos):
    "The loss that shares the cosines of words is that of captions read token by token."
    config = replace(QUICK, net=st.Net('token', 16)); model = st.Retriever(config.net, 160, st.names_of(videos), SMALL).eval(); word = videos.texts[0].split()[0]
    batch = st.batches(config, model, videos, {word: ('xyz', *st.names_of(videos)[3:9])})(np.arange(9)); found = []
    for read in (st._by_words, st._by_tokens):
        model.zero_grad(); v, vm = model.see(*batch[:2]); both, far = read(model, v, vm, [batch[2:4], batch[4:6]])
        (st.coarse_loss(config, 'token', both, model.scale(), batch[7]) + st.fine_loss(model.scale()*torch.cat([both[0].diag()[:, None], far[0]], 1), batch[6])).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(*found, atol=1e-5) and found[0].abs().max() > .01


def test_captions_are_swapped_after_the_hard_ones_were_made(videos):
    model = st.Retriever(QUICK.net, 160, st.names_of(videos), SMALL); table = {w: ('xyz',) for w in st.names_of(videos)}
    clean, swapped = (st.batches(replace(QUICK, swapped=c), model, videos, table) for c in (0., 1.))
    draw = lambda make: (st.random.seed(1), make(np.arange(6)))[1]
    a, b = draw(clean), draw(swapped)
    assert not torch.equal(a[2], b[2]) and torch.equal(a[2].sort()[0], b[2].sort()[0]) and torch.equal(a[4], b[4])


def test_batches_without_and_with_hard_captions(videos):
    model = st.Retriever(QUICK.net, 160, st.names_of(videos), SMALL); word = videos.texts[0].split()[0]
    plain = st.batches(QUICK, model, videos, None)(np.arange(4)); assert plain[4].numel() == 0 and st.batch_loss(QUICK)(model, plain).isfinite()
    hard = st.batches(QUICK, model, videos, {word: ('xyz',)})(np.arange(4)); assert hard[4].shape[:2] == (4, 5) and hard[6].any() and not hard[6].all()
    a, b = (st.batch_loss(replace(QUICK, lam=x))(model.eval(), hard) for x in (0., .4)); assert b > a


@pytest.mark.parametrize('change', [dict(loss='vsepp'), dict(loss='hn-nce'), dict(net=st.Net('pooled', 16)), dict(net=st.Net('token', 16, 1, 1)), dict(miner='san', released=True)], ids=str)
def test_every_kind_of_row_trains(videos, made, change):
    config = replace(QUICK, **change); model, history = st.train(config, videos, st.table_for(config, made), 3)
    assert len(history) == 2 and all(np.isfinite(h['loss']) for h in history) and 0 <= st.coarse_metrics(model, videos, 'test')['T2V R@1'] <= 100


def test_mining_is_the_same_again_and_has_all_tables(made):
    assert set(made['tables']) == set(st.MINERS) - {'none'} and set(made['sweep']) == {'0.9 0.7'}
    assert len(made['sweep']['0.9 0.7']) <= len(made['tables']['san']) and made['reliable'] <= made['signs']
    again = st.mining(st.Mining(QUICK, ((.9, .7),)), 3)
    assert again['manifest']['sha256'] == made['manifest']['sha256'] and made['manifest']['captions'] == 16 and len(made['manifest']['generators']) == 4


def test_the_miner_is_the_row_without_hard_negatives():
    rows = st.experiments('cpu')[0].rows
    assert rows['main: CiCo'].row == rows['main: CiCo'].mining.base and all(n in rows for k in st.BACKBONES for m in st.MINERS if (n := f'main: {st.row_name(k, m)}'))
    swept = [n.removeprefix('sweep: ').split(' = ') for n in rows if n.startswith('sweep')]
    for constant, default in st.SWEPT.items():
        values = [float(v) for k, v in swept if k == constant]; assert min(values) < default < max(values)
    assert rows['main: CiCo + SAN, literal'].row.hard == st.SWEPT['N_hard'] == 5 and rows['main: CiCo + SAN, literal'].row.swap == 2


def test_candidates_of_the_user_become_a_miner(tmp_path):
    names = st.names_of(st.videos_of(SMALL, 3)); file = tmp_path/'llm.json'; file.write_text(f'{{"{names[4]}": ["{names[5]}", "nobody"], "nothing": ["{names[4]}"]}}')
    rows = st.experiments('smoke', candidates=str(file))[0].rows; assert sum('your candidates' in n for n in rows) == 2 and not any(r.candidates for n, r in rows.items() if 'your' not in n)
    assert st.own_table(rows['main: CiCo + your candidates'].candidates, names) == {names[4]: (names[5],)}
    row = st.Row(replace(QUICK, miner='yours'), st.Mining(QUICK, ((.9, .7),)), rows['main: CiCo + your candidates'].candidates)
    done = replace(st.experiments('smoke')[0], rows={'main: CiCo + your candidates': row, 'main: CiCo': replace(row, row=QUICK, candidates=())}, seeds=(3,)).run(workers=1, progress=False)
    assert not done.failures and done.records['main: CiCo + your candidates', 3].metrics['table']['pairs'] == 1
    assert any(c['row'] == 'your candidates' and c['column'] == 'pairs' and c['value'] == 1 for c in st.mining_cells(done, 'smoke'))
    file.write_text('{"a": "b"}')
    with pytest.raises(InputError, match=r'llm.json: \$.a: expected a list'): st.experiments('smoke', candidates=str(file))


def test_a_run_of_stored_rows_still_has_its_mining():
    rows = {'main: CiCo': st.Row(QUICK, st.Mining(QUICK, ((.9, .7),)))}; e = replace(st.experiments('smoke')[0], rows=rows, seeds=(3,))
    for _ in range(2): done = e.run(workers=1, progress=False); assert set(st.mined_of(done)) == {3}


def test_a_caption_without_a_candidate_is_not_asked():
    fine = FineSet(['a b', 'c d', 'e f'], [{'one': ['a x'], 'two': []}, {'one': ['c x'], 'two': ['c y']}, {'one': [], 'two': []}])
    by = {'a b': 1., 'a x': 2., 'c d': 2., 'c x': 1., 'c y': 3., 'e f': 0.}
    class Videos: split = np.array(['test']*3)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(st, 'scores_of', lambda model, videos, index, rows, device: [np.array([by[c] for c in r]) for r in rows])
        got = st.fine_metrics(None, Videos, fine)
    assert (got['captions'], got['fine R@1'], got['candidates']) == (2, 0, 1.5)
    assert (got['captions, one'], got['fine R@1, one'], got['captions, two'], got['fine R@1, two']) == (2, 50, 1, 0)


def test_effects_of_constants_are_paired_by_seed():
    m = lambda *v: [{k: x for k in (*st.COARSE, *st.FINE)} | dict(videos=9, captions=9) for x in v]
    o = outcome({'main: CiCo + SAN, literal': m(1., 2., 4.), 'sweep: λ = 1': m(2., 4., 5.)})
    got = [c['value'] for c in st.table_cells(o, 'cpu') if c['table'] == 'sweep effect' and c['column'] == 'fine R@1' and c['row'] == 'λ = 1']
    assert got == [1., 2., 1.]


def test_true_pairs_differ_and_belong_to_test():
    found = st.true_pairs(SMALL, 3, 5); texts = [s.text for s in sentences(3, 0, 88, 40)]
    assert list(found) == ['look-alikes', 'minimal pairs', 'any two signs'] and len(found['any two signs']) == 5
    assert all(72 <= i < 88 and texts[i] == a != b for rows in found.values() for i, a, b in rows)


def outcome(values, rows=None):
    "An outcome whose rows have one metric dict per seed."
    class R:
        def __init__(self, m): self.metrics = m
    return Outcome('san', tuple(values), (0, 1, 2), {(r, s): R(m) for r, ms in values.items() for s, m in enumerate(ms)}, {}, [], 0., 1)


def test_preserved_is_an_equivalence_and_a_gain_is_a_difference():
    m = lambda fine, coarse: [dict(zip(('fine R@1', 'T2V R@1', 'V2T R@1', 'true minimal pairs'), (f, c, c, 50.))) for f, c in zip(fine, coarse)]
    o = outcome({'main: CiCo': m((10, 11, 12), (50, 51, 52)), 'main: CiCo + SAN, literal': m((15, 16.1, 17), (49.9, 51.1, 52)), 'main: CiCo + static word vectors': m((10, 11, 12.1), (40, 41, 42))})
    got = {c['id']: c for c in st.all_claims(o)}
    assert got['san-fine-token']['verdict'] == 'holds' and got['san-coarse-v2t-token']['verdict'] == 'holds' and got['san-coarse-v2t-token']['margin'] == 2
    assert got['san-fine-token']['printed'] == 21.5 and got['san-coarse-v2t-token']['printed'] == -2.3 and 'san-fine-pooled' not in got
    worse = outcome({'main: CiCo': m((1, 2, 3), (50, 51, 52)), 'main: CiCo + SAN, literal': m((1, 2, 3), (45, 46.1, 47))})
    assert {c['id']: c['verdict'] for c in st.all_claims(worse)}['san-coarse-v2t-token'] == 'contradicted'


def test_rows_of_all_scales_and_an_absent_corpus(place):
    for scale in st.SIZES:
        e, = st.experiments(scale); assert 'main: CiCo' in e.rows and 'main: GFSLT-VLP + SAN, literal' in e.rows
    assert len(st.table_rows(st.SIZES['gpu'])) > len(st.table_rows(st.SIZES['cpu'])) and not any('oracle' in r for r in st.table_rows(st.SIZES['gpu'], False))
    assert st.experiments('paper', 'cico-features') == []
    with pytest.raises(InputError, match='corpus'): st.experiments('smoke', 'how2sign')


def test_a_unit_on_signworld():
    row = replace(QUICK, miner='san', watch=True); m = compute(st.measure, st.Row(row, st.Mining(QUICK, ((.9, .7),))), 3).metrics
    assert m['selected on test'] >= m['selected on dev'] and m['videos'] == 16 and m['candidates'] > 5
    assert all(m[f'fine R@1, {g}'] >= m['fine R@1'] for g in ('static word vectors', 'masked language model', 'same category', 'SAN, literal'))


def test_cico_features_from_files(place):
    "The path of the paper scale: features and German texts in the released format."
    at, g = place/'data'/'cico-features', np.random.default_rng(0)
    said = [f'{a} {b} im {c}' for a in ('heute', 'morgen', 'abends') for b in ('regen', 'schnee', 'wind', 'sonne') for c in ('norden', 'sueden', 'osten')]
    code = {w: g.normal(size=1024).astype(np.float32) for t in said for w in t.split()}
    for split, rows in (('train', said*2), ('test', said[::3])):
        (at/split).mkdir(parents=True); notes = {}
        for i, t in enumerate(rows):
            x = np.stack([code[w] for w in t.split() for _ in range(2)]) + .1*g.normal(size=(8, 1024)).astype(np.float32)
            (at/split/f'{split}{i}.pkl').write_bytes(pickle.dumps(dict(name=f'{split}{i}', feature=x.astype(np.float32))))
            notes[f'{split}{i}'] = dict(video_name=f'{split}{i}', text='english', ori_text=t, num_frames=8)
        (at/f'{split}.pkl').write_bytes(pickle.dumps(notes))
    e, = st.experiments('smoke', 'cico-features', (0,))
    assert set(e.corpora) == {'cico-features'} and not any('oracle' in r for r in e.rows)
    quick = {n: replace(r, row=replace(r.row, fit=replace(r.row.fit, epochs=2, every=1))) for n, r in e.rows.items() if n in ('main: CiCo', 'main: CiCo + SAN, literal')}
    done = replace(e, rows=quick).run(workers=1, progress=False)
    assert not done.failures, done.failures
    cells = st.table_cells(done, 'smoke', 'cico-features'); assert {c['evidence'] for c in cells} == {'replicated'} and {c['row'] for c in cells if c['table'] == 'fine on cico-features'} == {'CiCo', 'CiCo + SAN'}  # of PHOENIX-2014T if of its 642 test videos
    assert st.mined_of(done)[0].metrics['manifest']['captions'] == 12
    assert {c['corpus'] for c in st.all_claims(done, 'cico-features')} == {'cico-features'}


def test_a_corpus_of_yours(place, tmp_path, monkeypatch):
    "Sentences with poses, by a reader of one's own; one that has neither poses nor features is refused."
    (tmp_path/'my_poses.py').write_text('''import numpy as np
from dataclasses import replace
from signbook.signworld import signworld
def read(folder): c = signworld('smoke', seed=5)[1]; return replace(c, card=replace(c.card, name='talks', text_language='en_XX'))
def read_bare(folder): return replace(read(folder), poses=None)
def read_train(folder): c = read(folder); return c.subset((c.frame['split'] == 'train').to_numpy())
''')
    monkeypatch.syspath_prepend(tmp_path); monkeypatch.setenv('SIGNBOOK_READERS', 'talks=my_poses:read,bare=my_poses:read_bare,half=my_poses:read_train')
    for n in ('talks', 'bare', 'half'): (place/'data'/n).mkdir(parents=True); (place/'data'/n/'x').touch()
    with pytest.raises(CorpusError, match='talks: features: expected numbers .* found neither'): st.experiments('smoke', 'bare')
    with pytest.raises(CorpusError, match='talks: split: expected train and test, found train'): st.experiments('smoke', 'half')
    e, = st.experiments('smoke', 'talks', (0,)); assert set(e.corpora) == {'talks'} and not any('oracle' in r for r in e.rows)
    done = replace(e, rows={n: r for n, r in e.rows.items() if n in ('main: CiCo', 'main: CiCo + SAN, literal')}).run(workers=1, progress=False); assert not done.failures, done.failures
    cells, claims = st.table_cells(done, 'smoke', 'talks'), st.all_claims(done, 'talks')
    assert {c['table'] for c in cells} >= {'coarse on talks', 'fine on talks'} and not {'coarse', 'fine'} & {c['table'] for c in cells} and {c['evidence'] for c in cells + claims} == {'replicated'}
