"Sem-Lex tables: pieces by hand, masks, splits and interventions; the smallest units from end to end."
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from signbook.core import InputError
from signbook.phonology import FEATURES, feature_names
from signbook.tables import semlex as sx
from signbook.training import FitConfig

SMALL = sx.Data(clips=160, signers=10, unseen=3, frames=6)
QUICK = sx.Training(SMALL, sx.Net(channels=(8,)), FitConfig(epochs=1, lr=3e-3))


@pytest.fixture(scope='module')
def clips():
    return sx.clips_of(SMALL, 0)


def slow_dtw(a, b):
    D = np.full((len(a) + 1, len(b) + 1), np.inf)
    D[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            D[i + 1, j + 1] = np.linalg.norm(a[i] - b[j]) + min(D[i, j], D[i, j + 1], D[i + 1, j])
    return D[-1, -1] / len(a)


def test_dtw_is_that_of_the_slow_version_for_any_block():
    g = np.random.default_rng(0)
    a, b = g.normal(size=(3, 5, 2)), g.normal(size=(4, 7, 2))
    want = [[slow_dtw(x, y) for y in b] for x in a]
    for block in (1, 2, 64):
        np.testing.assert_allclose(sx.dtw(torch.tensor(a), torch.tensor(b), block), want, atol=1e-6)


def test_clips_of_unseen_signers_are_in_test_alone(clips):
    assert not set(clips.signer[sx.at(clips, 'test')]) & set(clips.signer[sx.at(clips, 'train')])
    assert set(clips.signer[sx.at(clips, 'dev')]) <= set(clips.signer)
    assert clips.x.shape == (160, 6, 27, 2) and clips.x.dtype == torch.float32


def test_clips_are_in_shoulder_widths(clips):
    shoulders = clips.x[:, :, 3] - clips.x[:, :, 4]
    assert np.nanmedian(shoulders.norm(dim=-1).numpy()) == pytest.approx(1, abs=.1)


def test_a_rate_gives_lengths_of_their_own():
    timed = sx.clips_of(replace(SMALL, frames=12, rate=12.5), 0)
    assert len(set(timed.lengths.tolist())) > 3 and timed.lengths.max() <= 12
    for x, n in zip(timed.x, timed.lengths): assert torch.isnan(x[n:]).all()


def test_few_shots_and_leaks(clips):
    few = sx.training_clips(replace(QUICK, shots=2), clips, 0)
    assert set(few) <= set(sx.at(clips, 'train')) and np.bincount(clips.gloss[few]).max() <= 2
    leaked = sx.training_clips(replace(QUICK, leak=.5), clips, 0)
    test = sx.at(clips, 'test')
    assert len(set(leaked) & set(test)) == round(.5*len(test)) and set(sx.at(clips, 'train')) <= set(leaked)


def test_covered_takes_phonology_from_whole_signs(clips):
    some = sx.covered(clips.codes, clips.gloss, .45, 0)
    gone = (some < 0).all(1)
    assert len(set(clips.gloss[gone].tolist()) & set(clips.gloss[~gone].tolist())) == 0
    assert len(set(clips.gloss[~gone].tolist())) == round(.45*40)


def test_company_does_not_matter_unless_as_released():
    x, n = torch.randn(2, 9, 27, 2), torch.tensor([5, 9])
    x[0, 5:] = torch.nan
    for masked in (True, False):
        enc = sx.encoder_of(sx.Net(channels=(8, 8), masked=masked), 'openhands27', 2).eval()
        same = torch.allclose(enc(x, n)[0], enc(x[:1, :5], n[:1])[0], atol=1e-5)
        assert same == masked


def test_unseen_joints_give_a_finite_embedding_and_gradient():
    x = torch.randn(2, 6, 27, 2)
    x[0] = torch.nan
    net = sx.encoder_of(sx.Net(channels=(8,)), 'openhands27', 2)
    out = net(x, torch.tensor([6, 6]))
    out.sum().backward()
    assert torch.isfinite(out).all() and all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_loss_counts_what_applies():
    logits = [torch.zeros(2, n) for n in (5, *sx.feature_sizes())]
    codes = torch.full((2, 16), -1)
    assert sx.multitask_loss(None, logits, torch.tensor([0, 1]), codes, sx.used_heads('both')).item() == pytest.approx(math.log(5))
    codes[1, 2] = 0
    assert sx.multitask_loss(None, logits, torch.tensor([0, 1]), codes, sx.used_heads('features')).item() == pytest.approx(math.log(len(FEATURES[2].values)))
    model = sx.Recogniser(sx.TemporalNet(sx.joint_set('openhands27'), 2, (4,)), 5, sx.feature_sizes())
    assert sx.multitask_loss(model, logits, torch.tensor([0, 1]), codes, (0, 3), 'uncertainty').item() == pytest.approx(math.log(5) + math.log(len(FEATURES[2].values)))


def test_absent_as_a_class_is_the_last_one():
    codes = torch.tensor([[-1]*16])
    assert sx.feature_targets(codes, 'class')[0].tolist() == [len(f.values) for f in FEATURES]
    assert sx.feature_sizes('class')[0] == sx.feature_sizes()[0] + 1


def test_curriculum_adds_a_feature_at_a_time():
    heads = lambda epochs: sx.heads_by_epoch(replace(QUICK, curriculum=True, fit=FitConfig(epochs=epochs)), sx.used_heads('both'))
    assert [len(h) for h in heads(20)] == [*[2]*5, *range(3, 18)] and heads(20)[0] == (0, 1 + feature_names().index('Major Location'))
    assert [len(h) for h in heads(3)][-1] == 17 and len(heads(3)) == 3 and sx.heads_by_epoch(QUICK, (0,)) == [(0,)]*QUICK.fit.epochs


def test_a_curriculum_sees_the_batches_of_a_training_at_once(monkeypatch):
    "One training: the same batches, step by step, with and without a curriculum, each epoch another order."
    seen = {}
    for curriculum in (False, True):
        at = seen[curriculum] = []; real = sx.augmented
        monkeypatch.setattr(sx, 'augmented', lambda x, **k: (at.append(x.nan_to_num().sum().item()), real(x, **k))[1])
        sx.train(replace(QUICK, targets='features', curriculum=curriculum, fit=replace(QUICK.fit, epochs=3)), sx.clips_of(QUICK.data, 0), 0); monkeypatch.setattr(sx, 'augmented', real)
    assert seen[True] == seen[False] and len(set(seen[True])) == len(seen[True])


def test_augmentation_keeps_what_was_not_seen_and_is_one_turn_a_clip():
    x = torch.randn(3, 4, 5, 2)
    x[0, 1, 2] = torch.nan
    y = sx.augmented(x)
    assert torch.equal(torch.isnan(x), torch.isnan(y))
    z = torch.randn(1, 4, 5, 3)
    turned = sx.augmented(z, zoom=0.)
    np.testing.assert_allclose((turned[0] - turned[0, 0, 0]).norm(dim=-1), (z[0] - z[0, 0, 0]).norm(dim=-1), rtol=1e-4)


def test_feature_scores_skip_what_does_not_apply():
    logits = [torch.eye(n)[[0, 0, 1]] for n in sx.feature_sizes()]
    codes = np.full((3, 16), -1)
    codes[:2, 0], codes[:, 1] = 0, [0, 1, 1]
    got = sx.feature_scores(logits, codes, codes)
    assert got['Handshape'] == (100, 100, None)
    assert got['Selected Fingers'] == pytest.approx((200/3, 200/3, 0))
    assert set(got) == {'Handshape', 'Selected Fingers'}


def test_confusions_by_distance():
    codes = np.zeros((3, 16), int)
    codes[1, 0], codes[2] = 1, 1
    m = sx.confusion_metrics(np.eye(3)[[1, 1, 2]], [0, 1, 2], codes)
    assert m['confused, median'] == 1 and m['random, median'] == 15 and sum(m['confused histogram']) == 1
    assert sx.confusion_metrics(np.eye(3), [0, 1, 2], codes) == {}


def test_shortcut_is_in_training_and_in_one_of_two_tests():
    for kind, what in (('clothes', 2), ('signer', 1)):
        labels = sx.shortcut_labels(sx.Shortcut(kind=kind, train=2000, test=1000), 0)
        own = [len({(g, v) for g, v in zip(labels[0][labels[3] == k], labels[what][labels[3] == k])}) for k in (0, 2)]
        tied = [np.mean([np.bincount(labels[what][(labels[3] == k) & (labels[0] == g)], minlength=20).max() for g in range(10)]) for k in (1, 2)]
        assert tied[0] > 2*tied[1] and own[1] >= 100
    none = sx.shortcut_labels(sx.Shortcut(kind='none', test=1000), 0)
    assert abs(np.mean(none[0] == none[2]) - 1/10) < .03


def test_colours_reach_pictures_and_not_poses():
    tiny = sx.Shortcut(glosses=3, train=3, test=3, signers=3, frames=2, strength=1.)
    x, gloss, part = sx.shortcut_clips(tiny, 0)
    assert x.dtype == torch.uint8 and not torch.equal(x[part == 1], x[part == 2])
    p, _, _ = sx.shortcut_clips(replace(tiny, view='pose'), 0)
    assert torch.equal(p[part == 1].nan_to_num(), p[part == 2].nan_to_num())


def test_units_end_to_end_and_twice_the_same():
    r = sx.measure(QUICK, 0)
    assert 0 <= r['top-1'] <= r['top-3'] <= r['top-5'] <= 100 and r['MRR, released'] < r['MRR']
    assert r == sx.measure(QUICK, 0)
    f = sx.measure(replace(QUICK, targets='features'), 0)
    assert 'confused histogram' not in f and f['features'] > 0
    assert sx.measure(sx.Baseline(SMALL, 'majority'), 0)['top-5'] <= 100
    assert set(sx.measure(sx.Shortcut(glosses=2, train=8, test=4, signers=3, frames=2, channels=(4,), fit=FitConfig(epochs=1)), 0)) == {'with the shortcut', 'without', 'drop', 'clips'}


def test_without_a_feature_its_head_does_not_learn():
    assert len(sx.used_heads('both', 'Handshape + Contact')) == 15
    with pytest.raises(InputError, match='Handshap'): sx.used_heads('both', 'Handshap')


def test_selection_on_test_is_never_worse():
    h = [{'test/top-1': t, 'dev/top-1': d} for t, d in ((50, 1), (40, 9), (30, 5))]
    m = sx.selection_metrics(h)
    assert (m['selected on test'], m['selected on dev'], m['last epoch']) == (50, 40, 30)


def test_signer_cells_give_spread_and_rank_correlation():
    table = pd.DataFrame({'seed': [0]*4, 'top-1': [10., 20, 40, 80], 'tempo': [4., 3, 2, 1]})
    cells = {(c['row'], c['column']): c['value'] for c in sx.signer_cells(table, 'cpu', 4)}
    assert cells['seed 0', 'mean'] == 37.5 and cells['tempo', 'rho'] == -1


def test_scales_and_absent_corpora(tmp_path, monkeypatch):
    monkeypatch.setenv('SIGNBOOK_DATA', str(tmp_path))
    for scale in ('smoke', 'cpu', 'gpu', 'paper'):
        (e,) = sx.experiments(scale, 'signworld', (0, 1))
        assert all(': ' in r for r in e.rows)
    assert sx.experiments('cpu', 'semlex') == [] and sx.wlasl_cells('cpu') == []
    with pytest.raises(InputError, match='corpus'): sx.experiments('cpu', 'semlx')


def test_isl30_folds_hold_one_signer_out(real, monkeypatch, tmp_path):
    monkeypatch.setenv('SIGNBOOK_DATA', str(real)); monkeypatch.setenv('SIGNBOOK_OUTPUTS', str(tmp_path))
    (e,) = sx.experiments('smoke', 'isl30', (0,))
    c = sx.corpus_clips(e.rows['majority / S03'].data)
    assert set(c.signer[sx.at(c, 'test')]) == {'S03'} and 'S03' not in c.signer[c.split != 'test']
    assert c.x.shape == (2700, 32, 12, 3) and (c.codes < 0).all()


def test_recorders_are_held_out(real, monkeypatch):
    monkeypatch.setenv('SIGNBOOK_DATA', str(real))
    c = sx.corpus_clips(sx.Data('asl-mediapipe', frames=20, test='R1'))
    assert set(c.signer) == {'R1', 'R2'} and set(c.signer[c.split == 'test']) == {'R1'}


def test_a_corpus_with_its_own_split_and_phonology(monkeypatch):
    small = sx.world_of(SMALL, 0)
    from signbook.signworld import signworld
    corpus = signworld(small.size, 0)[0]
    corpus = replace(corpus, card=replace(corpus.card, name='semlex'), frame=corpus.frame.assign(split=corpus.frame['split'].replace('dev', 'val')))
    monkeypatch.setattr(sx, 'load_corpus', lambda name, **options: corpus)
    monkeypatch.setattr(sx, 'present', lambda name: True)
    sx.clips_of.cache_clear()
    (e,) = sx.experiments('smoke', 'semlex', (0,))
    both = next(c for r, c in e.rows.items() if 'gloss + 16' in r)
    c = sx.corpus_clips(both.data)
    assert set(c.split) == {'train', 'dev', 'test'} and set(c.gloss[c.split == 'test'].tolist()) <= set(c.gloss[c.split == 'train'].tolist())
    assert c.x.shape[1:] == (48, 27, 2) and (c.codes >= 0).any()
    r = sx.measure(both, 0)
    assert r['features'] > 0 and 'signer tempo' not in r
    sx.clips_of.cache_clear()


def test_what_is_not_learned_is_not_scored():
    r = sx.measure(replace(QUICK, without='Handshape'), 0)
    assert 'Handshape: accuracy' not in r and 'Flexion: accuracy' in r


def test_the_full_recipe_on_files_as_released(tmp_path, monkeypatch):
    "Sem-Lex's files: metadata and half-precision poses, face first; the paper's network, all frames, best epoch on dev."
    monkeypatch.setenv('SIGNBOOK_DATA', str(tmp_path)); monkeypatch.setenv('SIGNBOOK_OUTPUTS', str(tmp_path / 'outputs'))
    at, rng, rows = tmp_path / 'semlex', np.random.default_rng(0), []
    values = {f.name: f.values for f in FEATURES}
    for k in range(48):
        split, sign = ('train', 'train', 'val', 'test')[k % 4], k // 4 % 3
        x = rng.uniform(.3, .7, (20 + k % 7, 553, 3)).astype(np.float16); x[:3, 511:553] = np.nan
        (at / split).mkdir(parents=True, exist_ok=True); np.save(at / split / f'v{k:02d}.npy', x)
        rows.append({'video_id': f'v{k:02d}', 'signer_id': str(k % 5), 'duration': '1936', 'split': split, 'label_type': 'asllex', 'label': f'sign_{sign}', **{n: v[sign % len(v)] for n, v in values.items()}, 'Flexion Change': '0', 'SignBank Reference ID': '1.0'})
    pd.DataFrame(rows).to_csv(at / 'semlex_metadata.csv')
    (e,) = sx.experiments('paper', 'semlex', (0,))
    gloss, both = (next(c for r, c in e.rows.items() if r.startswith('slgcn') and n in r) for n in ('gloss only', 'gloss + 16'))
    assert (gloss.net.scale, gloss.fit.optimizer, gloss.fit.lr, gloss.fit.batch_size, gloss.fit.monitor, both.targets) == (1., 'adam', 1e-3, 32, 'top-1', 'both')
    sx.clips_of.cache_clear(); clips = sx.corpus_clips(gloss.data)
    assert len(set(clips.lengths.tolist())) > 3 and clips.lengths.max() < 30 and (clips.codes >= 0).all()
    r = sx.measure(replace(both, fit=replace(both.fit, epochs=2, batch_size=8)), 0)
    assert r['parameters'] > 3.5e6 and r['clips'] == 12 and 0 <= r['features'] <= 100 and 'embedding change' not in r
    sx.clips_of.cache_clear()


def test_the_gpu_size_takes_steps_on_a_cpu():
    "The full network on a world of 1,000 glosses, with few clips."
    from signbook.tables.semlex import SIZES
    net, fit = SIZES['gpu'].slgcn
    data = replace(SIZES['gpu'].data, clips=1050)
    r = sx.measure(sx.Training(data, net, replace(fit, epochs=2, max_steps=2, batch_size=16), 'both'), 3)
    assert SIZES['gpu'].data.glosses == 1000 and r['parameters'] > 3.8e6 and 0 <= r['top-1'] <= 100
    sx.clips_of.cache_clear()
