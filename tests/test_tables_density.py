"Density tables: pieces by hand, likeness of the five kinds, the smallest units from end to end, and the large scale for two steps."
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from signbook.core import InputError
from signbook.density import Aligned, gloss_instances, sign_density_ratio
from signbook.evidence import paper_value
from signbook.experiment import Failure, Outcome, Record
from signbook.tables import density as dt
from signbook.training import FitConfig

TINY = dt.Data(40, (12, 6, 6), 4, 1)
SMOKE = dt.SIZES['smoke']


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        m.setenv('SIGNBOOK_OUTPUTS', str(tmp_path_factory.mktemp('outputs')))
        dt.corpus_of.cache_clear()
        yield m
    dt.corpus_of.cache_clear()


@pytest.fixture(scope='module')
def corpus(out): return dt.corpus_of(TINY, 0)


def small(kind, **more): return dt.Features(TINY, kind, SMOKE.net, FitConfig(epochs=1, batch_size=8), clips=40, **more)


def test_pictures_texts_and_truth_have_one_clock(corpus):
    assert [len(f) for f in corpus.frames] == [-(-int(n)//2) for n in corpus.lengths]
    for s, g, n in zip(corpus.segments, corpus.glosses, corpus.lengths):
        assert [corpus.names[k] for k in s[:, 0]] == g.split() and s[:, 1:].sum(1).max() <= n
    words, signs = dt.words_of(corpus)
    seen = {g for i in dt.rows_of(corpus, 'train') for g in corpus.glosses[i].split()}
    assert set(signs.tokens[2:]) == seen and len(words) > 10


def test_distillation_by_hand():
    p, t = torch.tensor([[[.75, .25], [.5, .5]]]).log(), torch.tensor([[[.5, .5], [.9, .1]]]).log()
    assert dt.taught(p, t, torch.tensor([[True, False]]), 1.).item() == pytest.approx(math.log(2/3**.5))
    x = p.clone().requires_grad_(); y = t.clone().requires_grad_()
    dt.taught(x, y, torch.tensor([[True, True]])).backward()
    assert x.grad.abs().sum() > 0 and y.grad is None


def test_mutual_loss_has_four_parts_and_recognition_one(corpus):
    words, signs = dt.words_of(corpus); base, data = dt.gloss_batches(corpus, dt.rows_of(corpus, 'train'), words, signs)
    torch.manual_seed(0); np.random.seed(0); model = dt.GlossNet(SMOKE.net, len(signs)).eval(); batch = data(np.arange(4))
    one, two = (dt.gloss_loss(k, None, model, batch)[0] for k in ('recognition', 'mutual'))
    seen, late, early = model(batch); mask, n = seen.encoded.mask, seen.encoded.lengths
    ctc = [torch.nn.functional.ctc_loss(x.transpose(0, 1), batch['glosses'], n, batch['gloss_lengths'], reduction='sum')/batch['gloss_lengths'].sum() for x in (late, early)]
    assert one.item() == pytest.approx(ctc[0].item(), rel=1e-5)
    assert two.item() == pytest.approx((sum(ctc) + dt.taught(early, late, mask) + dt.taught(late, early, mask)).item(), rel=1e-5)
    with_signcl = dt.gloss_loss('recognition', lambda x, n, w: x.new_tensor(3.), model, batch)[0]
    assert (with_signcl - one).item() == pytest.approx(.03, abs=1e-5)


def test_signcl_in_units_of_pictures_and_channels():
    k = dt.frame_loss_of(128, 4).keywords
    assert k == dict(threshold=32., min_margin=2.5) and dt.frame_loss_of(512).keywords == dict(threshold=64., min_margin=10.)
    value = dt.frame_loss_of(2, 2)(torch.zeros(1, 30, 2), torch.tensor([30]), torch.tensor([10])) # all frames equal: no pull, and every frame with a negative pushes at 64*sqrt(2/512) = 4
    assert 0 < value.item() <= 4.0001


def test_the_other_lexicon_is_another():
    x, y = dt.other_clips(TINY, 0, 41)
    assert x.shape == (41, 8, 32, 32, 3) and y.tolist() == [*range(40), 0] and not torch.equal(x[0], x[40])
    assert torch.equal(dt.other_clips(TINY, 0, 5)[0], x[:5])
    a, b = (dt.make_world(s, dt.Size('x', 40, 40, 40, 4, 1, (1, 1, 1))).lexicon.codes for s in (0, dt.OTHER))
    assert (a != b).any(1).mean() > .8


def test_segments_by_hand():
    assert dt.spread(np.array([[7, 0, 2], [8, 2, 3]]), 2, 9).tolist() == [[7, 0, 4], [8, 4, 5]]
    assert dt.equal_parts([7, 8, 9], 10).tolist() == [[7, 0, 3], [8, 3, 4], [9, 7, 3]]


def test_density_is_that_of_the_middle_frames_of_unseen_sentences(corpus):
    g = np.random.default_rng(0)
    x = [g.normal(size=(len(f), 5)) for f in corpus.frames]
    rows = [i for i in range(len(x)) if corpus.split[i] != 'train']
    middles = np.concatenate([[x[i][(a + (n - 1)//2)//2] for _, a, n in corpus.segments[i]] for i in rows])
    names = [n for i in rows for n in corpus.glosses[i].split()]
    assert dt.density_of(corpus, x, 2, resamples=0).sdr == pytest.approx(sign_density_ratio(middles, names, resamples=0, device='cpu').sdr)
    assert [v.shape for v in dt.by_sentence(np.concatenate(x).astype(np.float16), corpus)] == [v.shape for v in x]


@pytest.mark.parametrize('kind, signcl', [('recognition', False), ('mutual', True), ('video', False), ('vlp', True)])
def test_each_kind_trains_the_same_encoder(corpus, kind, signcl):
    model = dt.train_frames(small(kind, signcl=signcl), corpus, 0)
    start = dt.train_frames(replace(small(kind, signcl=signcl), fit=FitConfig(epochs=1, batch_size=8, lr=1e-12)), corpus, 0)
    a, b = (dict(m.visual.frame.named_parameters()) for m in (model, start))
    assert a.keys() == dict(dt.VisualTower(SMOKE.net).frame.named_parameters()).keys()
    assert all((a[k] != b[k]).any() for k in a)


def test_unknown_names():
    with pytest.raises(InputError, match='kind'): dt.train_frames(small('recogniton'), None, 0)
    with pytest.raises(InputError, match='dress'): dt.pictures(replace(TINY, dress='hme'), 0)
    with pytest.raises(InputError, match='scale'): dt.experiments('cpuu')
    with pytest.raises(InputError, match='smoke, cpu or gpu'): dt.experiments('paper')
    with pytest.raises(InputError, match='corpus'): dt.experiments('smoke', 'phoenix')


def test_rows_of_every_scale():
    for scale in ('smoke', 'cpu', 'gpu'):
        (e,) = dt.experiments(scale, 'signworld', (0, 1))
        assert len(e.rows) == 6 + 15 + 3 + 1 and all(f'{m}: {k}' in e.rows for k, m in dt.STAGES.values())
        assert {r for r in dt.ALIGNERS.values()} <= set(e.rows)
        assert len({repr(c) for c in e.rows.values()}) == len(e.rows)
        widths = {c.net.features for n, c in e.rows.items() if n.startswith('features')}
        assert len(widths) == 1
    assert [u.unit.rpartition('.')[2] for u in dt.experiments('smoke')[0].units('cpu', only='NSLT: VLP pretrained')][:2] == ['draw', 'extract']


def test_units_end_to_end_and_twice_the_same(out):
    rows = {k: replace(v, data=TINY) if isinstance(v, dt.Features) else replace(v, features=replace(v.features, data=TINY)) for k, v in dt.experiments('smoke')[0].rows.items()}
    assert dt.draw(TINY, 0)['sentences'] == 24
    f = dt.measure(rows['features: Self-Mutual KD'], 0)
    assert set(f.tensors) == {'chosen', 'gloss'} and len(f.tensors['chosen']) == f.metrics['instances'] == len(f.tensors['gloss'])
    assert f.metrics['low'] <= f.metrics['high'] and len(f.metrics['gloss ratio']) == len(f.metrics['gloss gloss'])
    joint, aligner = (dt.measure(rows[r], 0) for r in ('Joint-SLT: Self-Mutual KD', 'aligner: Self-Mutual KD'))
    assert joint == dt.measure(rows['Joint-SLT: Self-Mutual KD'], 0)
    assert {'BLEU-4', 'ROUGE-L', 'WER, test', 'IoU, test'} <= set(joint) and not any('IoU' in k for k in dt.measure(rows['Joint-SLT: VLP pretrained'], 0)) and 'BLEU-4' not in aligner and aligner['SDR, middle frames'] == pytest.approx(f.metrics['SDR'])
    assert sum(joint['hits count']) == sum(len(s) for s, k in zip(dt.corpus_of(TINY, 0).segments, dt.corpus_of(TINY, 0).split) if k != 'train')
    nslt = dt.measure(rows['NSLT + SignCL: Self-Mutual KD'], 0)
    assert set(nslt) == {'BLEU-4', 'ROUGE-L', 'sentences'}


def test_the_large_scale_for_two_steps(out):
    size = dt.SIZES['gpu']; few = dict(max_steps=2, batch_size=2, bucket=0)
    data = replace(TINY, sentences=(4, 3, 3), size=size.data.size)
    f = {k: replace(c, data=data, fit=replace(c.fit, **few), clips=4) for k, c in dt.feature_rows(size).items()}
    assert f[dt.BASED].net.frames == 'resnet18' and size.slt.dim == paper_value('signcl', 'table4', 'hidden size', 'PHOENIX-2014T') == 512
    assert size.slt_fit.batch_size == paper_value('signcl', 'table4', 'batch-size', 'PHOENIX-2014T')
    corpus = dt.corpus_of(data, 0)
    vlp = dt.train_frames(f['VLP + SignCL'], corpus, 0)
    x = dt.frame_features(vlp, dt.GFSLTData(corpus.frames[:2]))
    assert x[0].shape == (len(corpus.frames[0]), 512) and np.isfinite(x[0]).all()
    rows = dt.translation_rows(size)
    both = np.random.default_rng(0).normal(size=(len(corpus.frames), 60, 512)).astype(np.float32)
    both = [v[:len(c)] if len(c) <= 60 else np.resize(v, (len(c), 512)) for v, c in zip(both, corpus.frames)]
    for name in ('Joint-SLT: VLP pretrained', 'NSLT + SignCL: VLP pretrained'):
        model, *_ = dt.train_slt(replace(rows[name], features=f['VLP pretrained'], fit=replace(size.slt_fit, epochs=2, warmup=0., bucket=0, batch_size=4)), corpus, both, 0)
        assert all(torch.isfinite(p).all() for p in model.parameters())


def record(**metrics): return Record('', 'u', {}, 0, metrics, {}, {}, '', [], {}, '')


def made_up(sdr, seeds=(0, 1, 2)):
    "An outcome in which everything follows from each kind's SDR, but for a little that differs by row and seed."
    rows = tuple(dt.experiments('smoke')[0].rows); records, g = {}, np.random.default_rng(0)
    for s in seeds:
        ratio, names = g.uniform(.3, .9, 30), [f'G{i}' for i in range(30)]
        for r in rows:
            model, _, kind = r.partition(': '); a_little = .001*(s - 1)*rows.index(r)
            if model == 'features':
                records[r, s] = record(SDR=sdr[kind] + .1*s + a_little, low=sdr[kind] - 1, high=sdr[kind] + 1, inter=2., intra=1., instances=60, **{'SDR, train': 50., 'gloss gloss': names, 'gloss count': [2]*30, 'gloss inter': (1/ratio).tolist(), 'gloss intra': ratio.tolist(), 'gloss ratio': ratio.tolist()})
                continue
            wer = {f'WER, {x}': sdr[kind] + s + a_little for x in ('train', 'dev', 'test')} | {f'{m}, {x}': 50. for m in ('IoU', 'equal parts IoU', 'inside') for x in ('train', 'dev', 'test')} | {f'signs, {x}': 9 for x in ('train', 'dev', 'test')}
            more = {'hits gloss': names, 'hits count': [3]*30, 'hits accuracy': (1 - ratio).tolist(), 'SDR, middle frames': 60., 'SDR, aligned frames': 61.} | wer if model.startswith(('Joint', 'aligner')) else {}
            records[r, s] = record(sentences=7, **({'BLEU-4': 100 - sdr[kind] + s + a_little + 2*('+ SignCL' in model), 'ROUGE-L': 30.} if model != 'aligner' else {}), **more)
    return Outcome('density', rows, tuple(seeds), records, {}, [], 0., 1)


LIKE_THE_PAPER = {k: paper_value('signcl', 'figure2', k, 'SDR') or 62.18 for k in dt.KINDS}


def test_claims_of_an_outcome_like_the_paper_hold_and_of_the_opposite_do_not():
    for sdr, verdict in ((LIKE_THE_PAPER, 'holds'), ({k: 150 - v for k, v in LIKE_THE_PAPER.items()}, 'contradicted')):
        said = {c['id']: c for c in dt.all_claims(made_up(sdr))}
        for id in ('gloss-free-denser', 'vlp-smkd', 'signcl-lowers-sdr', 'vlp-wer', 'signcl-extraction'): assert said[f'density-{id}']['verdict'] == verdict, id
        for id in ('accuracy-sdr', 'accuracy-d-inter', 'accuracy-d-intra', 'signcl-fine-tuning'): assert said[f'density-{id}']['verdict'] == 'holds', id
        worse = said['density-denser-translated-worse']; assert (worse['effect'], worse['verdict']) == (pytest.approx(-1), 'inconclusive')  # a rho of -1 in every seed has no interval
    said = {c['id']: c for c in dt.all_claims(made_up(LIKE_THE_PAPER))}
    assert said['density-gloss-free-denser']['printed'] == 17.81 and said['density-signcl-lowers-sdr']['printed'] == -11.29 and said['density-signcl-both']['printed'] == 2.78 and said['density-denser-translated-worse']['printed'] == -1
    assert said['density-vlp-smkd']['effect'] == pytest.approx(26.36) and said['density-accuracy-sdr']['effect'] == pytest.approx(-1) and said['density-accuracy-sdr']['n'] == 90


def test_cells_stand_in_the_papers_rows():
    cells = dt.world_rows(made_up(LIKE_THE_PAPER), 'smoke'); at = {}
    for c in cells: at.setdefault((c['table'], c['row'], c['column']), []).append(c)
    assert [c['value'] for c in at['table11', 'VLP pretrained', 'SDR']] == pytest.approx([92.59, 92.69, 92.79], abs=.05)
    assert {(r, c) for t, r, c in at if t == 'table11'} == {(r, c) for r in dt.FIVE for c in ('SDR', 'WER', *(f'{m} BLEU-4' for m in dt.MODELS))}
    assert len(at['table1', 'gloss-free: + SignCL, both', 'SignWorld BLEU-4']) == 3 and ('table1', 'gloss-free: + SignCL, both', 'SignWorld WER') not in at
    assert len([k for k in at if k[0] == 'figure3a']) == 3*9*2 and sum(c['n'] for k, cs in at.items() if k[0] == 'figure3a' and k[2] == 'density' and k[1].startswith(dt.BASED + ',') for c in cs) == 90
    assert at['table10', 'Spearman rho', 'SignWorld SDR'][0]['value'] == pytest.approx(-1)


def test_figures_from_cells():
    result = dict(rows=dt.world_rows(made_up(LIKE_THE_PAPER), 'smoke'))
    assert list(dt.bins_from(result)) == ['SMKD', 'VLP + SignCL', 'VLP']
    b = dt.bins_from(result)['SMKD']
    assert b['density'].is_monotonic_increasing and b['accuracy'].is_monotonic_decreasing
    for fig in (dt.accuracy_figure(result), dt.translation_figure(result)):
        assert fig.axes
        dt.plt.close(fig)
    assert [dt.short(k) for k in dt.FIVE] == ['SRP', 'SMKD', 'I3D', 'VLP', 'VLP + SignCL']


def test_a_failed_unit_leaves_the_rest():
    o = made_up(LIKE_THE_PAPER); gone = ('features: VLP pretrained', 1)
    o.records.pop(gone); o.failures[gone] = Failure('error', 'no room')
    cells = dt.world_rows(o, 'smoke')
    assert [c.get('error') for c in cells if (c['table'], c['row'], c['column'], c['seed']) == ('table11', 'VLP pretrained', 'SDR', 1)] == ['error: no room']
    said = {c['id']: c for c in dt.all_claims(o)}
    assert said['density-vlp-smkd']['n'] == 2 and said['density-denser-translated-worse']['n'] == 2
    assert dt.translation_figure(dict(rows=cells)).axes
    dt.plt.close('all')


def test_bins_need_glosses_that_all_kinds_share():
    o = made_up(LIKE_THE_PAPER, (0, 1)); assert set(dt.bins_of(o)) == set(dt.BINNED)
    for gone in (('Joint-SLT: VLP pretrained', 0), ('Joint-SLT: Self-Mutual KD', 1)): o.records.pop(gone); o.failures[gone] = Failure('error', 'no room')
    assert [len(dt.gloss_table(o, k)) for k in dt.BINNED] == [30, 60, 30] and dt.bins_of(o) == {}
    assert not any(c['table'] == 'figure3a' for c in dt.world_rows(o, 'smoke'))


def test_alignments_against_the_truth_by_hand(monkeypatch):
    names, segments = ('A', 'B'), [np.array([[0, 0, 4], [1, 4, 4]]), np.array([[1, 0, 8]])]
    corpus = dt.Corpus([np.zeros((4, 1, 1, 3), np.uint8)]*2, ['a b', 'b'], ['A B', 'B'], segments, np.array([8, 8]), np.array(['train', 'dev']), names)
    signs = dt.build_vocabulary(['A B'], specials=dt.GLOSS_SPECIALS); x = [np.random.default_rng(i).normal(size=(4, 3)) for i in range(2)]
    found = [Aligned(np.array([[2, 0, 1], [3, 1, 3]]), np.array([0, 1]), 0.), None]
    monkeypatch.setattr(dt, 'align', lambda *a: found); monkeypatch.setattr(dt, 'density_of', lambda *a, **k: SimpleNamespace(sdr=50.))
    got = dt.aligned_metrics(SimpleNamespace(features=SimpleNamespace(data=SimpleNamespace(every=2))), None, corpus, x, signs)
    assert got['unaligned'] == 1 and got['IoU, train'] == pytest.approx(100*(2/4 + 4/6)/2) and got['equal parts IoU, train'] == 100 and got['inside, train'] == 50 and got['signs, train'] == 2
    for split in ('dev', 'test'): assert [got[f'{m}, {split}'] for m in ('IoU', 'equal parts IoU', 'inside', 'signs')] == [None, None, None, 0]
    o = made_up(LIKE_THE_PAPER); o.records['aligner: Self-Mutual KD', 0].metrics.update({k: v for k, v in got.items() if v is None or v == 0})
    assert any(c['value'] is None and c['n'] == 0 for c in dt.aligner_cells(o, 'smoke'))


def test_a_recogniser_that_knows_nothing_has_no_correlation():
    t = pd.DataFrame(dict(inter=[1., 2, 3, 4], intra=[1., 2, 3, 5], ratio=[.1, .2, .3, .4], accuracy=[0.]*4, seed=[0]*4))
    assert dt.correlations(t) is None and dt.table10_cells(t, 'smoke') == [] and dt.correlations(t[:0]) is None
    assert dt.within_seeds(t.assign(accuracy=[0., 0, 1, 1]))['accuracy'].tolist() == pytest.approx([-.8660254, -.8660254, .8660254, .8660254])


def test_equal_parts_against_the_hmm_alignment_of_phoenix(real, monkeypatch):
    from signbook.corpora import load_corpus
    monkeypatch.setenv('SIGNBOOK_DATA', str(real))
    labels = load_corpus('phoenix14t'); at = range(0, len(labels.segments), 8)
    pairs = [(dt.equal_parts(s[:, 0], int(labels.frame['frames'].iloc[i])), s) for i in at if len(s := labels.segments[i])]
    assert all(p[-1, 1:].sum() == labels.frame['frames'].iloc[i] for (p, _), i in zip(pairs, (i for i in at if len(labels.segments[i]))))
    iou = dt.alignment_iou(*map(list, zip(*pairs)))
    assert len(iou) > 7000 and .37 < iou.mean() < .43
