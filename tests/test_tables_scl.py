"SCL-SLT tables: truth by loops, selection against its controls, rows and claims by hand, and a small unit from end to end."
from dataclasses import replace

import numpy as np
import pytest
import torch

from signbook.core import InputError
from signbook.corpora import CorpusError
from signbook.evidence import cell
from signbook.experiment import Outcome, compute
from signbook.gfslt import gfslt_config
from signbook.scl import CLASSES, meetings, thinned
from signbook.signworld import articulation_distance, sentences
from signbook.tables import scl as st
from signbook.training import FitConfig

SMALL = st.Data(60, 40, (48, 4, 12), 6, 2)
NET = gfslt_config('cpu', frames='feature', inputs=st.CHANNELS, widths=(), features=16, conv=16, dim=16, ffn=16, heads=2, text_heads=2)
QUICK = st.Run(SMALL, NET, FitConfig(epochs=2, batch_size=8, lr=3e-3, clip=1.))
SIZE = st.Scale(QUICK, replace(QUICK.fit, epochs=1), (1, 1, 1), st.ALL)


@pytest.fixture(autouse=True)
def here(tmp_path_factory, monkeypatch):
    "Outputs in one folder for the whole file, and one thread."
    monkeypatch.setenv('SIGNBOOK_OUTPUTS', str(tmp_path_factory.getbasetemp()/'scl'))
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_corpus_is_standardised_and_in_order():
    c = st.corpus_of(SMALL, 3); x = np.concatenate([c.clips[i] for i in st.rows_of(c, 'train')])
    assert len(c.clips) == len(c.texts) == len(c.glosses) == 64 and x.shape[1] == st.CHANNELS and abs(x.mean(0)).max() < .3 and abs(x).max() <= 6
    assert [(t, g) for t, g in zip(c.texts, c.glosses)] == [(s.text, s.gloss) for s in sentences(3, 0, 64, 40)]


def test_truth_by_a_loop_over_pairs():
    c = st.corpus_of(SMALL, 3); at = st.rows_of(c, 'train'); texts, glosses = [c.texts[i] for i in at], [set(c.glosses[i]) for i in at]
    d = articulation_distance(st.world_of(SMALL, 3)); kinds, hard = st.train_truth(SMALL, 3); n = len(at); signs = [sorted(c.glosses[i]) for i in at]
    far = np.array([[np.mean([min(d[a, b] for b in glosses[j]) for a in glosses[i]]) for j in range(n)] for i in range(n)])
    assert np.allclose(hard, -(far + far.T)/2, atol=1e-5); cut = np.quantile(hard[~np.eye(n, dtype=bool)], .9)
    for i in range(n):
        for j in range(n):
            if abs(hard[i, j] - cut) < 1e-6: continue
            want = 0 if texts[i] == texts[j] else 1 if signs[i] == signs[j] else 2 if len(glosses[i] & glosses[j]) >= len(glosses[i] | glosses[j])/2 else 3 if hard[i, j] >= cut else 4
            assert kinds[i, j] == want


def test_detection_and_ranking_by_hand():
    classes, kinds = np.array([0, 1, 2, 3, 2]), np.array([1, 2, 4, 0, 1]); d = st.detection(classes, kinds)
    assert d['L→H', 'same signs'] == pytest.approx((50, 100/3, 60)) and d['all but H→L', 'half the signs'] == pytest.approx((75, 75, 80))
    assert st.ranking({'x': np.array([2., 1, 0, 3, 1])}, kinds)['x', 'same signs'] == pytest.approx(100*5.5/6)
    assert st.ranking({'x': np.zeros(2)}, np.array([4, 4]))['x', 'same signs'] is None


def test_permuted_and_oracle_deltas():
    select = SIZE.selected(); d = st.delta_for(select, SMALL, 3); p = st.delta_for(replace(select, by='permuted'), SMALL, 3)
    assert d.shape == (48, 48) and np.allclose(np.sort(d.ravel()), np.sort(p.ravel())) and not np.allclose(d, p) and np.allclose(np.sort(np.diag(d)), np.sort(np.diag(p)))
    assert (st.delta_for(st.Select('oracle'), SMALL, 3) == st.train_truth(SMALL, 3)[1]).all() and st.delta_for(st.Select('change'), SMALL, 3) is None
    with pytest.raises(InputError, match='selection'): st.delta_for(st.Select('easy'), SMALL, 3)


def test_a_thin_reference_has_the_checkpoints_of_a_full_one():
    fit = replace(QUICK.fit, epochs=4); full, thin = (st.trajectories_of(SIZE.reference(fit=fit, every=k), 3) for k in (1, 2))
    assert thin.epochs == (0, 2, 4) and (thinned(full, 2).s == thinned(thin, 2).s).all()


def test_texts_without_spaces_are_compared_by_characters():
    unspaced = replace(QUICK, data=st.Videos('csl-daily', characters=True), select=st.Select(apart=.5)); texts = ['今天有雨', '今天有雪', '你好']
    apart = lambda run: {int(j) for j in st.sampler_of(run, None, None, texts, 0).near[0]} - {0}
    assert apart(unspaced) == {1} and apart(replace(unspaced, data=SMALL)) == set()


def test_batches_are_written_down_and_kept_apart():
    c = st.corpus_of(SMALL, 3); texts = [c.texts[i] for i in st.rows_of(c, 'train')]; groups = np.unique(texts, return_inverse=True)[1]
    noted = st.Noted(st.sampler_of(replace(QUICK, select=SIZE.selected(schedule='hard', apart=1.)), None, None, texts, 0))
    for e in (0, 1): noted.set_epoch(e); assert list(noted) == noted.seen[e]
    assert [sorted(sum(e, [])) for e in noted.seen] == [list(range(48))]*2
    m = st.meeting_metrics(noted.seen, texts, [c.glosses[i] for i in st.rows_of(c, 'train')])
    assert m['pairs of one text'] == [meetings(e, groups) for e in noted.seen] and m['same signs, last epoch'] >= m['one text, last epoch']


def test_rows_of_a_table_share_their_units():
    rows = st.table_rows(st.SIZES['cpu']); same = rows['ablation: + SCL']
    assert rows['curriculum: log'] == rows['interval: usual'] == rows['aggregation: CiCo'] == same and rows['aggregation: CiCo, random batches'] == rows['ablation: + CL']
    assert len({repr(r) for r in rows.values()}) == len(rows) - 4 and rows['interval: long'].run.select.interval == 4
    assert {r.partition(':')[0] for r in st.table_rows(st.SIZES['smoke'])} == {'ablation', 'controls'} and len(st.table_rows(st.SIZES['smoke'])) == 10
    with pytest.raises(InputError, match='corpus'): st.experiments('smoke', 'phoenix14')
    assert st.experiments('paper') == [] and st.SIZES['paper'].run.lora == 16 and st.SIZES['paper'].intervals == (1, 5, 10)


@pytest.mark.parametrize('row', ['ablation: baseline, end to end', 'ablation: SCL-SLT, two stages', 'aggregation: CLS token', 'controls: online: change', 'controls: online: level', 'controls: oracle, texts apart', 'sensitivity: text encoder frozen', 'sensitivity: padding in the softmax', 'sensitivity: same text in the loss: positive', 'sensitivity: pool: 32'])
def test_every_kind_of_row_trains(row):
    m = compute(st.measure, st.table_rows(SIZE)[row], 3).metrics
    assert 0 <= m['BLEU-4'] <= 100 and m['sentences'] == 12 and (m['R@1'] is None) == ('baseline' in row or 'two stages' in row)


def test_lora_trains_and_goes_into_the_second_stage():
    run = replace(QUICK, lora=2, keep=True); model = st.model_of(run, range(50), 0); assert any(n.endswith('.up') for n, _ in model.named_parameters())
    assert np.isfinite(compute(st.measure, st.Row(run, replace(QUICK.fit, epochs=1)), 3).metrics['BLEU-4'])


def test_analysis_counts_every_negative():
    m = compute(st.analyse, st.Analysis(SIZE.reference(), 1), 3).metrics
    assert sum(m['pairs'].values()) == m['negatives'] == 48*47 and sum(m['shares'].values()) == pytest.approx(100)
    for c in CLASSES: assert sum(m['pairs'][k]*x[c] for k, x in m['shares by kind'].items() if x)/m['negatives'] == pytest.approx(m['shares'][c])
    default = next(r for r in m['sensitivity'] if (r['hat'], r['rule'], r['eps']) == ('fit', 'change', .05)); assert all(default[c] == pytest.approx(m['shares'][c]) for c in CLASSES)
    auc = {(a, b): v for a, b, v in m['ranking']}; assert auc['oracle: confusable signs', 'half the signs'] > 90 and 0 <= m['drift'] <= 100 and -1 <= m['again: δ'] <= 1


def outcome(values):
    "An outcome whose rows have one metric dict per seed."
    class R:
        def __init__(self, m): self.metrics = m
    return Outcome('scl', tuple(values), (0, 1, 2), {(r, s): R(m) for r, ms in values.items() for s, m in enumerate(ms)}, {}, [], 0., 1)


def test_claims_and_effects_by_hand():
    m = lambda *v: [{'BLEU-4': x, 'ROUGE-L': x, 'R@1': x, 'one text, last epoch': x/10, 'sentences': 9} for x in v]
    o = outcome({f'ablation: {st.BASELINE}': m(10, 11, 12), f'ablation: {st.CL}': m(10, 11, 12.1), f'ablation: {st.SCL}': m(13, 14.1, 15), 'controls: online: change': m(13, 14.2, 15.1), 'curriculum: hard only': m(14, 15.1, 16.2)})
    got = {c['id']: c for c in st.paper_claims(o) + st.control_claims(o)}
    assert (got['scl-scl']['verdict'], got['scl-scl']['printed'], got['scl-cl']['verdict'], got['scl-cl']['printed']) == ('holds', 3.33, 'inconclusive', .06)
    assert (got['scl-log-hard']['verdict'], got['scl-log-hard']['printed']) == ('contradicted', 12.89) and 'scl-log-easy' not in got
    assert (got['scl-online-change']['verdict'], got['scl-online-change']['margin']) == ('holds', 1)
    cells = st.effect_cells(o, 'smoke'); c = next(c for c in cells if (c['row'], c['column']) == (st.SCL, 'BLEU-4 over + CL')); assert c['value'] == pytest.approx(3) and c['low'] < 3 < c['high']
    frame = st.effects_frame(dict(rows=cells), 'ablation'); assert frame.loc[st.SCL, 'BLEU-4 over + CL'].endswith('✓ raises') and frame.loc[st.CL, 'BLEU-4 over + SCL'].endswith('✗ lowers')


def test_choices_show_their_effect():
    c = cell('sclslt', 'effect, sensitivity', 'ω = 0', 'BLEU-4 over + SCL', 1., low=.5, high=1.5, evidence='mechanism', corpus='signworld', scale='smoke', n=3, unit='points')
    f = st.choices_frame(dict(rows=[c])).set_index('argument')['BLEU-4, other less ours']
    assert f['Select.omega'] == '1.00 [0.50, 1.50]' and f['Select.pool'] == 'not run' and f['Run.lora'] == 'no row'


def test_real_videos_from_end_to_end(phoenix, monkeypatch):
    with pytest.raises(CorpusError, match='mbart-large-50: folder: expected an mBART .* facebook/mbart-large-50'): st.experiments('paper', 'phoenix14t')
    (phoenix.parent/'mbart-large-cc25').rename(phoenix.parent/'mbart-large-50'); st.corpus_of.cache_clear()
    with pytest.raises(CorpusError, match='phoenix14t: scale: expected gpu or paper'): st.experiments('cpu', 'phoenix14t')
    with pytest.raises(CorpusError, match='phoenix14t: labels: expected the files'): st.experiments('paper', 'phoenix14t')
    monkeypatch.setattr('signbook.tables.signcl.present', lambda name: True)
    trajectories, plan = st.experiments('paper', 'phoenix14t'); rows = plan.rows; assert trajectories.corpora == plan.corpora and set(plan.corpora) == {'phoenix14t'}
    assert {r.partition(':')[0] for r in rows} == {'ablation', 'curriculum', 'interval', 'aggregation', 'controls'} and not any('oracle' in r for r in rows)
    assert all(r.run.frozen and r.run.lora == 16 and r.run.net.encoder_layers == r.run.net.decoder_layers == 12 for r in rows.values())
    net = gfslt_config('paper', size=32, conv=32, dim=32, ffn=32, heads=4, text_heads=4, text_layers=1, encoder_layers=1, decoder_layers=1, longest=6); one = FitConfig(epochs=2, batch_size=2, lr=.001, precision='fp32')
    run = st.real_size('phoenix14t').run; run = replace(run, data=replace(run.data, size=32), net=net, fit=one, lora=2, beam=2)
    size = st.Scale(run, replace(one, epochs=1), (1, 1, 2), st.ALL[:5])
    m = st.analyse(st.Analysis(size.reference()), 0)
    assert sum(m['shares'].values()) == pytest.approx(100) and m['pairs']['look-alike'] == 0 and m['pairs']['same text'] == 0 and m['pairs']['same signs'] == 4 and 'oracle: confusable signs' not in {n for n, *_ in m['ranking']}
    for row in ('ablation: SCL-SLT, two stages', 'aggregation: mean', 'controls: + SCL, texts apart'): assert np.isfinite(st.measure(st.table_rows(size)[row], 0)['BLEU-4'])
    o = outcome({f'ablation: {r}': [{'BLEU-4': v + s/10, 'ROUGE-L': 1., 'R@1': None, 'sentences': 4} for s in range(3)] for r, v in ((st.BASELINE, 10), (st.CL, 10.5))} | {'interval: long': [{'BLEU-4': 9., 'ROUGE-L': 1., 'R@1': 2., 'sentences': 4}]*3})
    on = lambda corpus: replace(o, name=f'scl {corpus}'); places = lambda corpus: {(c['table'], c['column']) for c in st.table_cells(on(corpus), 'paper') if c['column'].endswith('BLEU-4')}
    assert places('phoenix14t') == {('ablation', 'PHOENIX-2014T BLEU-4'), ('interval', 'BLEU-4')} and places('csl-daily') == {('ablation', 'CSL-Daily BLEU-4'), ('interval on csl-daily', 'BLEU-4')}
    assert {c: st.paper_claims(on(c))[0]['printed'] for c in ('signworld', 'phoenix14t', 'csl-daily', 'talks')} == {'signworld': .06, 'phoenix14t': .06, 'csl-daily': 4.28, 'talks': .06}
    st.corpus_of.cache_clear()


def test_a_corpus_of_yours(phoenix, tmp_path, monkeypatch):
    (tmp_path/'my_sentences.py').write_text('''from signbook.corpora import Card, ContinuousCorpus, read_table
def read(folder): return ContinuousCorpus(Card('talks', text_language='de_DE'), read_table(folder/'labels.csv', ('name', 'text')).astype({'frames': int}))
''')
    monkeypatch.syspath_prepend(tmp_path); monkeypatch.setenv('SIGNBOOK_READERS', 'talks=my_sentences:read'); st.corpus_of.cache_clear()
    (phoenix.parent/'mbart-large-cc25').rename(phoenix.parent/'mbart-large-50')
    names = [p.relative_to(phoenix/'frames').as_posix() for p in sorted((phoenix/'frames').glob('*/*'))]; (tmp_path/'talks').mkdir(); (tmp_path/'talks/frames').symlink_to(phoenix/'frames')
    (tmp_path/'talks/labels.csv').write_text('name,text,gloss,signer,split,frames\n' + ''.join(f'{x},{("am tag sonne", "der wind weht")[i % 2]},,s,{x.split("/")[0]},24\n' for i, x in enumerate(names)))
    trajectories, plan = st.experiments('gpu', 'talks', (0,)); run = plan.rows['ablation: + SCL'].run
    assert (run.fit.epochs, run.start.language, plan.name, set(trajectories.corpora)) == (st.SIZES['gpu'].run.fit.epochs, 'de_DE', 'scl talks', {'talks'}) and {r.partition(':')[0] for r in plan.rows} == {'ablation', 'curriculum'}
    net = gfslt_config('paper', size=32, conv=32, dim=32, ffn=32, heads=4, text_heads=4, text_layers=1, encoder_layers=1, decoder_layers=1, longest=6)
    size = st.Scale(replace(run, data=replace(run.data, size=32), net=net, fit=FitConfig(epochs=2, batch_size=2, lr=.001, precision='fp32'), lora=2, beam=1), run.fit, (1, 1, 2), ('ablation',))
    m = compute(st.analyse, st.Analysis(size.reference()), 0).metrics
    assert m['pairs']['same signs'] == 0 and m['pairs']['same text'] > 0 and all(v[2] is not None for d, t, *v in m['detection'])  # no gloss is no shared sign
    st.corpus_of.cache_clear()


def test_pretrained_weights_arrive_and_only_lora_learns(phoenix):
    net = gfslt_config('paper', size=32, conv=32, dim=32, ffn=32, heads=4, text_heads=4, text_layers=1, encoder_layers=1, decoder_layers=1, longest=6)
    run = replace(st.SIZES['paper'].run, data=st.Videos('phoenix14t', 32), net=net, start=st.Weights(), lora=2); words = st.words_of(run, st.corpus_of(run.data, 0)); model = st.model_of(run, words, 0)
    from transformers import MBartModel
    source = MBartModel.from_pretrained(phoenix.parent/'mbart-large-cc25')
    same = lambda a, b: torch.equal(a.layers[0].fc1.weight, b.layers[0].fc1.weight)
    assert same(model.text, source.encoder) and same(model.visual.encoder, source.encoder) and same(model.decoder.body, source.decoder)
    assert torch.equal(model.decoder.body.embed_tokens.weight[5], source.shared.weight[words.rows[5]])
    gelu = type(source.encoder.layers[0].activation_fn); assert model.config.activations == ('gelu',)*3 and all(type(e.layers[0].activation_fn) is gelu for e in (model.text, model.visual.encoder, model.decoder.body))
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any(n.startswith('text.') for n in learns) and {n.rpartition('.')[2] for n in learns if n.startswith(('visual.encoder', 'decoder.body'))} == {'up', 'down'}
    second = st.second_stage(model); assert all(type(e.layers[0].activation_fn) is gelu for e in (second.visual.encoder, second.decoder.body))


def test_the_large_scale_takes_a_step_of_both_stages():
    z = st.SIZES['gpu']; one = replace(z.run.fit, epochs=2, batch_size=2, precision='fp32')  # two steps, then one
    size = replace(z, run=replace(z.run, data=replace(z.run.data, sentences=(2, 1, 1)), fit=one, beam=1), second=replace(one, epochs=1), intervals=(1, 1, 1))
    m = compute(st.measure, st.table_rows(size)['ablation: SCL-SLT, two stages'], 0).metrics
    assert np.isfinite(m['BLEU-4']) and set(st.table_rows(z)) >= {'ablation: + SCL', 'curriculum: hard only'}
