"Verdicts, corrections and result files: the one rule against slow obvious versions, failed seeds, and bad input."
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from signbook.core import InputError, packaged, provenance, save_json
from signbook.evidence import (KINDS, VERDICTS, by_cell, cell, cell_text, check_result, claim, claim_of, claims_frame, corrected, decimals, effect_verdict, failed, holm, larger, load_result, not_run,
                               paper_ours, papers, pooled, save_result, value_verdict, verdict, wide)
from signbook.metrics import paired_bleu_test, paired_test, seed_test

ABOUT = dict(paper='signcl', evidence='mechanism', corpus='signworld', unit='points')
MADE = provenance({'scale': 'smoke', 'seeds': '0,1,2', 'out': ''})


def made_cell(value, row='ours', column='BLEU-4', seed=None, **k): return cell('signcl', 'ablation', row, column, value, seed=seed, **{**dict(evidence='mechanism', corpus='signworld', scale='smoke', n=100), **k})


def difference(p, low=.1, high=2., id='c', **k): return claim_of(dict(effect=(low + high) / 2, low=low, high=high, p=p, n=5), id, 'Ours is better', **{**ABOUT, **k})


def slow_verdict(kind, low, high, better, claimed, margin):
    "Every point of the interval is asked what it says of the claim."
    points = np.linspace(low, high, 401)
    if kind == 'equivalence':
        within = abs(points) <= margin
        return 'holds' if within.all() else 'inconclusive' if within.any() else 'contradicted'
    points = points if better == 'higher' else -points
    size = claimed if claimed is None or better == 'higher' else -claimed
    if (points > 0).all(): return 'holds'
    return 'contradicted' if (points < 0).all() or size is not None and (points < size).all() else 'inconclusive'


def test_verdict_is_what_all_points_of_the_interval_say():
    ends, seen = [-3., -2., -1., -.5, 0., .5, 1., 2., 3.], set()
    for low, high in itertools.combinations_with_replacement(ends, 2):
        for better, claimed in itertools.product(('higher', 'lower'), (None, -2.25, -.75, .75, 2.25)):
            got = verdict('difference', (low + high) / 2, low, high, better=better, claimed=claimed)
            assert got == slow_verdict('difference', low, high, better, claimed, None) == effect_verdict(low, high, better, claimed), (low, high, better, claimed)
            seen.add(got)
        for margin in (.5, 1., 2.5):
            if low < -margin and high > margin: assert verdict('equivalence', 0., low, high, margin=margin) == 'inconclusive'
            else: assert verdict('equivalence', 0., low, high, margin=margin) == slow_verdict('equivalence', low, high, '', None, margin), (low, high, margin)
    assert seen == {'holds', 'contradicted', 'inconclusive'}


def test_value_verdicts():
    for printed, value, low, high, exact, said in [
            (98.42, 98.4249, None, None, True, 'holds'), (98.42, 98.4251, None, None, True, 'contradicted'), (98.42, 98.4251, None, None, False, 'inconclusive'), (98.42, 97., 96., 98.42, True, 'holds'),
            (98.42, 97., 96., 98.41, False, 'contradicted'), (9, 9.4, None, None, True, 'holds'), (9, 9.6, None, None, True, 'contradicted'), (.0618, .06184, None, None, True, 'holds'), (0, 0, 0, 0, True, 'holds'),
            (-1.5, -1.46, None, None, True, 'holds'), (9, None, None, None, True, 'not run'), (9, None, None, None, False, 'not run')]:
        assert verdict('value', value, low, high, printed=printed, exact=exact) == value_verdict(printed, value, low, high, exact) == said, (printed, value)
    assert [decimals(x) for x in (1e-5, 2.5e-7, 1e16, 100, 12.50, -3.25, 0)] == [5, 8, 0, 0, 1, 2, 0]


@pytest.mark.parametrize('how', [dict(kind='effect', value=1.), dict(kind='value', value=1.), dict(kind='difference', value=1., low=1.), dict(kind='difference', value=1., high=1.), dict(kind='difference', value=1., low=2., high=1.),
                                 dict(kind='difference', value=1., low=math.nan, high=1.), dict(kind='value', value=math.nan, printed=1.), dict(kind='difference', value=1., better='more'), dict(kind='equivalence', value=1., low=0., high=1.),
                                 dict(kind='equivalence', value=1., margin=0), dict(kind='equivalence', value=1., margin=-1), dict(kind='equivalence', value=1., margin=math.nan), dict(kind='difference', value=1., margin=1), dict(kind='difference', value=1., margin=-1)])
def test_verdict_refuses(how):
    with pytest.raises(InputError, match='^verdict'): verdict(**how)


def test_difference_holds_by_luck_at_most_as_often_as_said():
    rng = np.random.default_rng(0)
    said = [claim_of(seed_test(*rng.normal(size=(2, 4))), 'c', 'c', **ABOUT)['verdict'] for _ in range(2000)]
    assert abs(said.count('holds') / 2000 - .025) < .012 and abs(said.count('contradicted') / 2000 - .025) < .012


def slow_tost(d, margin):
    "The larger p of the two one-sided tests, and the smaller p of the two that the mean lies beyond one margin."
    t = lambda bound, side: stats.ttest_1samp(d, bound, alternative=side).pvalue
    return max(t(-margin, 'greater'), t(margin, 'less')), min(t(-margin, 'less'), t(margin, 'greater'))


def test_equivalence_is_two_one_sided_tests():
    rng, seen = np.random.default_rng(1), set()
    for n, mean in itertools.product((3, 5, 10), np.linspace(-3, 3, 41)):
        a, b = rng.normal(mean, .4, n), np.zeros(n)
        t = seed_test(a, b, margin=1.)
        inside, outside = slow_tost(a, 1.)
        said = verdict('equivalence', t['effect'], t['low'], t['high'], margin=t['margin'])
        assert said == ('holds' if inside < .025 else 'contradicted' if outside < .025 else 'inconclusive')
        assert np.isclose(t['p'], 2 * min(inside, outside)) and (t['p'] < .05) == (said != 'inconclusive')
        assert (t['low'], t['high']) == tuple(seed_test(a, b)[k] for k in ('low', 'high'))
        seen.add(said)
    assert seen == {'holds', 'contradicted', 'inconclusive'}
    at_the_margin = [claim_of(seed_test(rng.normal(1., .5, 5), np.zeros(5), margin=1.), 'c', 'c', **ABOUT)['verdict'] for _ in range(2000)]
    assert at_the_margin.count('holds') / 2000 < .035


def test_margin_of_a_bootstrap():
    rng = np.random.default_rng(2)
    a = rng.normal(.2, 1., 400)
    for margin, said in ((1., 'holds'), (.2, 'inconclusive')):
        t = paired_test(a, np.zeros(400), 'bootstrap', margin=margin)
        assert verdict('equivalence', t['effect'], t['low'], t['high'], margin=margin) == said and (t['p'] < .05) == (said == 'holds')
    far = paired_test(a + 5, np.zeros(400), 'bootstrap', margin=1.)
    assert far['p'] < .001 and claim_of(far, 'c', 'c', **ABOUT)['verdict'] == 'contradicted'
    assert paired_test([2., 2.], [1., 1.], margin=1)['p'] is None and paired_test([1., 1.], [1., 1.], margin=1)['p'] == 0
    for margin in (0, -1, math.nan, math.inf):
        with pytest.raises(InputError, match='margin'): paired_test([1, 2], [1, 1], margin=margin)


def test_failed_seeds_drop_their_pair_and_are_counted():
    whole = seed_test([21., None, 23.5, 26., None], [20., 21., 22., None, None])
    assert whole == {**paired_test([21., 23.5], [20., 22.]), 'dropped': 3}
    c = claim_of(whole, 'c', 'Ours is better', **ABOUT, printed=1.2, note='ours')
    assert (c['n'], c['effect'], c['printed'], c['note']) == (2, 1.25, 1.2, 'ours; 3 of 5 pairs dropped because a run failed')
    one, none = seed_test([1., None], [0., 0.]), seed_test([None, 1.], [1., None])
    assert (one['n'], one['low'], one['p'], one['dropped']) == (1, None, None, 1) and claim_of(one, 'c', 'c', **ABOUT)['verdict'] == 'inconclusive'
    assert (none['n'], none['effect'], none['dropped']) == (0, None, 2) and claim_of(none, 'c', 'c', **ABOUT)['verdict'] == 'not run'
    assert claim_of(seed_test([], []), 'c', 'c', **ABOUT)['verdict'] == claim_of(None, 'c', 'c', **ABOUT)['verdict'] == 'not run'
    assert claim_of(seed_test([None], [1], margin=2), 'c', 'c', **ABOUT)['kind'] == 'equivalence'
    for bad in (lambda: seed_test([1, 2], [1]), lambda: seed_test([1, math.nan], [1, 2]), lambda: seed_test(['a', 'b'], [1, 2])):
        with pytest.raises(InputError): bad()


def test_claims_take_everything_from_their_test():
    t = seed_test([21., 23., 22.], [20., 21., 21.5])
    c = claim_of(t, 'c', 'c', **ABOUT)
    assert all(c[k] == t[k] for k in ('effect', 'low', 'high', 'p', 'n')) and c['kind'] == 'difference' and 'margin' not in c
    assert claim_of(t, 'c', 'c', **ABOUT, better='lower')['verdict'] == 'inconclusive'
    equal = claim_of(seed_test([1., 2.], [2., 3.]), 'c', 'c', **ABOUT, better='lower')
    assert equal['verdict'] == 'inconclusive' and 'all 2 differences are equal' in equal['note']
    assert 'all 2 differences are equal' in claim_of(seed_test([1., 2.], [2., 3.]), 'c', 'c', **ABOUT)['note']
    assert claim_of(dict(effect=.1, low=-.1, high=.3, p=.3, n=5), 'c', 'c', **ABOUT, claimed=2.)['verdict'] == 'contradicted'
    same = claim_of(seed_test([20.1, 21., 21.4], [20., 21., 21.5], margin=1), 'c', 'c', **ABOUT)
    assert (same['kind'], same['margin'], same['verdict']) == ('equivalence', 1, 'holds') and same['note'].endswith('within ±1 points')
    assert claim_of(paired_bleu_test(['a b c d', 'x y z w'], ['a b', 'x y'], ['a b c d', 'x y z w'], resamples=50), 'c', 'c', **ABOUT)['n'] == 2
    for bad in (dict(kind='effect'), dict(p=1.5), dict(p=math.nan), dict(verdict='maybe')):
        with pytest.raises(InputError): claim('c', 'c', **{**dict(paper='signcl', verdict='holds', evidence='mechanism', corpus='x', n=1), **bad})


def slow_holm(p, alpha):
    "Holm's procedure as it is told: the smallest p against alpha/k, the next against alpha/(k - 1), until one fails."
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] > alpha / (len(p) - step): break
        rejected.add(i)
    return rejected


def test_holm_by_hand_and_by_the_procedure():
    assert np.allclose(holm([.01, .04, .03, .005]), [.03, .06, .06, .02]) and np.allclose(holm([.5, .02, .5]), [1, .06, 1])
    assert holm([]).shape == (0,) and holm([0., 1.]).tolist() == [0, 1]
    rng = np.random.default_rng(3)
    for _ in range(300):
        p = rng.random(rng.integers(1, 12))**3
        if rng.random() < .3: p[-1] = p[0]
        adjusted = holm(p)
        assert (adjusted >= p).all() and (adjusted <= 1).all() and (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
        for alpha in (.01, .05, .2): assert slow_holm(p, alpha) == set(np.flatnonzero(adjusted <= alpha)), (p, alpha)
    for bad in ([-.1], [1.1], [math.nan], [[.1]]):
        with pytest.raises(InputError, match='holm'): holm(bad)


def test_correction_changes_what_luck_explains_and_says_why():
    claims = [difference(.001, id='sure'), difference(.03, id='lucky', note='by hand'), difference(.04, -2., -.1, id='against'), difference(.6, -1., 1., id='open'),
              claim('value', 'A value', verdict='contradicted', printed=2., effect=3., low=2.5, high=3.5, n=5, **ABOUT), difference(.04, id='elsewhere', paper='scl')]
    before = json.dumps(claims)
    out = {c['id']: c for c in corrected(claims)}
    assert json.dumps(claims) == before
    assert {k: (c.get('p_holm') and round(c['p_holm'], 9), c['verdict']) for k, c in out.items()} == {'sure': (.004, 'holds'), 'lucky': (.09, 'inconclusive'), 'against': (.09, 'inconclusive'), 'open': (.6, 'inconclusive'),
                                                                                                  'value': (None, 'contradicted'), 'elsewhere': (.04, 'holds')}
    assert out['lucky']['note'] == "by hand; holds by its interval, but not after Holm's correction over 4 claims (p 0.03, corrected 0.09)"
    assert {k: c.get('uncorrected') for k, c in out.items() if 'uncorrected' in c} == {'lucky': 'holds', 'against': 'contradicted'} and out['open']['note'] == ''


def test_correction_is_the_same_twice_in_any_order_and_for_any_family():
    claims = [difference(p, id=f'c{i}', note='x' * (i % 2)) for i, p in enumerate((.001, .012, .02, .03, .04))]
    once = corrected(claims)
    assert corrected(once) == once and corrected(corrected(once)) == once
    back = {c['id']: c for c in corrected(claims[::-1])}
    assert [back[c['id']] for c in once] == once
    assert corrected(once[:1] + once[4:]) == corrected(claims[:1] + claims[4:]) and corrected(once[4:]) == corrected(claims[4:])
    assert corrected(once[4:])[0]['verdict'] == 'holds' and corrected([*once, difference(.01, id='new')]) == corrected([*claims, difference(.01, id='new')])
    assert corrected([]) == [] and corrected([{**claims[0], 'p': None}]) == [{**claims[0], 'p': None}]


def test_correction_leaves_what_p_does_not_decide():
    size = difference(.8, -.5, .6, claimed=3.)
    outside = claim_of(dict(effect=3., low=2., high=4., p=.04, n=5, margin=1.), 'e', 'e', **ABOUT)
    kept, lost, gone = corrected([size, outside, claim_of(dict(effect=0., low=-.5, high=.5, p=.04, n=5, margin=1.), 'f', 'f', **ABOUT)])
    assert (kept['verdict'], kept['p_holm']) == ('contradicted', .8)
    assert (outside['verdict'], lost['verdict'], lost['uncorrected']) == ('contradicted', 'inconclusive', 'contradicted') and (gone['verdict'], gone['uncorrected']) == ('inconclusive', 'holds')
    alone, = corrected([difference(.06)])
    assert alone['verdict'] == 'inconclusive' and 'over 1 claim (p 0.06, corrected 0.06)' in alone['note']


def test_family_wise_error_is_kept():
    rng, wrong = np.random.default_rng(4), {True: 0, False: 0}
    for _ in range(300):
        claims = [claim_of(seed_test(*rng.normal(size=(2, 5))), f'{i}', 'c', **ABOUT) for i in range(6)]
        for fixed in wrong: wrong[fixed] += any(c['verdict'] in ('holds', 'contradicted') for c in (corrected(claims) if fixed else claims))
    assert wrong[True] / 300 < .085 < .18 < wrong[False] / 300


def test_saving_corrects_once_and_for_all(tmp_path):
    claims = [difference(p, id=f'{i}') for i, p in enumerate((.03, .04))]
    r = save_result(tmp_path / 'a.json', '99_toy', 'Toy', [], claims, provenance=MADE)
    assert [c['verdict'] for c in r['claims']] == ['inconclusive'] * 2 and load_result(tmp_path / 'a.json') == r
    assert save_result(tmp_path / 'b.json', '99_toy', 'Toy', [], r['claims'], provenance=MADE)['claims'] == r['claims']
    assert claims_frame(r)['p, Holm'].tolist() == ['0.06', '0.06'] and [c['verdict'] for c in claims] == ['holds'] * 2


def test_committed_results_load_and_keep_their_verdicts():
    files = sorted(packaged('reference').glob('*.json'))
    assert files
    for f in files:
        r = load_result(f)
        for old, new in zip(r['claims'], corrected(r['claims'])):
            if 'p_holm' not in old: assert {k: v for k, v in new.items() if k != 'p_holm'} == old, (f.name, old['id'])
            if old['kind'] == 'value': assert old['verdict'] == value_verdict(old['printed'], old['effect'], old['low'], old['high']) or old['verdict'] == 'inconclusive' and old['note']  # where readings differ
            elif 'uncorrected' not in old and old['kind'] == 'difference': assert old['verdict'] in (effect_verdict(old['low'], old['high'], better) for better in ('higher', 'lower'))


def test_failed_cells_reach_the_file_and_come_back(tmp_path):
    rows = [made_cell(20., seed=0), made_cell(None, seed=1, error='NonFinite: loss at step 12')]
    r = save_result(tmp_path / 'a.json', '99_toy', 'Toy', rows, [], provenance=MADE)
    assert load_result(tmp_path / 'a.json')['rows'] == rows and failed(load_result(tmp_path / 'a.json')) == rows[1:] and 'error' not in rows[0]
    for edit, field in ((dict(value=1.), 'rows[1].error'), (dict(error=''), 'rows[1].error'), (dict(error=None), 'rows[1].error'), (dict(error=3), 'rows[1].error'), (dict(erorr='x'), 'rows[1].erorr')):
        save_json(tmp_path / 'bad.json', {**r, 'rows': [rows[0], {**rows[1], **edit}]})
        with pytest.raises(InputError, match=r'bad\.json') as e: load_result(tmp_path / 'bad.json')
        assert field in str(e.value)
    for bad in (dict(value=1., error='x'), dict(value=None, error=''), dict(value=None, error=['x'])):
        with pytest.raises(InputError, match='error'): made_cell(**bad)


@pytest.mark.parametrize('edit', [dict(uncorrected='maybe'), dict(p_hlom=.1), dict(verdict='failed')])
def test_malformed_claims_are_refused(edit):
    r = dict(notebook='99_toy', title='Toy', rows=[], claims=[{**difference(.1), **edit}], not_run=[], figures=[], provenance=MADE)
    with pytest.raises(InputError, match=r'claims\[0\]'): check_result(r)
    assert check_result({**r, 'claims': [{**difference(.1), 'p_holm': .1, 'uncorrected': 'holds', 'margin': 1}], 'provenance': {**MADE, 'units': []}})


def test_pooled_counts_the_seeds_that_entered():
    rows = [made_cell(None, seed=0, error='killed'), *(made_cell(v, seed=i) for i, v in enumerate((20., 22., 27.), 1)), made_cell(None, seed=4)]
    for order in itertools.permutations(rows):
        c = pooled(list(order))
        low, high = stats.t.interval(.95, 2, 23., stats.sem([20., 22., 27.]))
        assert np.allclose([c['value'], c['low'], c['high']], [23., low, high]) and (c['n_seeds'], c['n_failed'], c['seed']) == (3, 1, None) and 'error' not in c
    assert cell_text(pooled(rows)).endswith('(3 of 4 seeds)') and '(' not in cell_text(pooled(rows[1:]))
    single = pooled([rows[0], rows[1]])
    assert (single['value'], single['seed'], single['low'], single['n_seeds'], cell_text(single)) == (20., 1, None, 1, '20.00 (1 of 2 seeds)')
    assert [pooled([made_cell(3., low=2., high=4.)])[k] for k in ('low', 'n_seeds', 'n_failed')] == [2., 0, 0]
    for order in (rows[::4], rows[::-4]): assert (pooled(order)['error'], pooled(order)['n_failed'], cell_text(pooled(order))) == ('killed', 1, 'failed: killed')
    assert cell_text(pooled(rows[4:])) == cell_text(None) == 'not run'


def test_tables_show_what_failed():
    rows = [made_cell(20., 'ours', seed=0), made_cell(None, 'ours', seed=1, error='killed'), made_cell(None, 'theirs', seed=0, error='NonFinite:\n loss ' + 'at step 12 ' * 20), made_cell(1.5, 'ours', 'SDR', seed=0)]
    frame = wide(rows, 'ablation')
    assert frame.loc['ours'].tolist() == ['20.00 (1 of 2 seeds)', '1.50'] and frame.loc['theirs', 'SDR'] == ''
    shown = frame.loc['theirs', 'BLEU-4']
    assert shown.startswith('failed: NonFinite: loss at step 12') and shown.endswith('…') and len(shown) <= 68 and '\n' not in shown
    beside = paper_ours(dict(rows=rows[2:3]), dict(rows=[made_cell(19., 'theirs', seed=0), made_cell(21., 'theirs', seed=1)])).iloc[0]
    assert beside['ours'] == shown and beside['reference'].startswith('20.00 [') and beside['seeds'] == 2 and beside['n'] == 100
    assert 'seeds' not in paper_ours(dict(rows=rows[:1])) and paper_ours(dict(rows=rows[2:3])).iloc[0]['n'] == ''
    single = paper_ours(dict(rows=[cell('signcl', 'table3', 'Sign2GPT (w/ PGP)', 'BLEU-4', 9., seed=s, evidence='replicated', corpus='csl-daily', scale='paper', n=1176) for s in range(1)]))
    assert single['verdict'].tolist() == ['? inconclusive']
    assert list(by_cell(rows).values())[0]['n_failed'] == 1


def test_figures_come_from_the_reference_where_everything_failed():
    ref = dict(rows=[made_cell(3.)], provenance=MADE)
    lost = [made_cell(None, error='killed')]
    assert larger(lost, 'gpu', ref) is ref and larger([*lost, made_cell(1.)], 'gpu', ref)['rows'][0] is lost[0] and larger(lost, 'gpu', None) == dict(rows=lost)


def test_wide_leaves_open_what_was_never_meant():
    rows = [made_cell(1., 'a', 'x'), made_cell(2., 'b', 'y'), made_cell(None, 'b', 'z')]
    assert wide(rows, 'ablation').values.tolist() == [['1.00', '', ''], ['', '2.00', 'not run']]
    assert wide(rows, 'ablation', missing=[not_run('signcl', 'ablation', 'a', '', ''), not_run('signcl', 'other', 'b', '', '')]).values.tolist() == [['1.00', 'not run', 'not run'], ['', '2.00', 'not run']]
    assert wide(rows, 'ablation', columns=['y', 'w'], missing=[not_run('signcl', 'ablation', 'y', '', '')]).values.tolist() == [['2.00', 'not run']]
    assert wide(rows, 'nothing').values.tolist() == [['not run']] and wide(rows, 'nothing', columns=['p', 'q']).values.tolist() == [['not run', 'not run']]
    assert wide([made_cell(7, 'a', 'x')], 'ablation', 3).iloc[0, 0] == '7'


def test_kinds_and_verdicts_are_the_documented_ones():
    assert KINDS == ('value', 'difference', 'equivalence') and VERDICTS == ('holds', 'contradicted', 'inconclusive', 'not testable here', 'not run')


def test_claims_come_from_the_larger_run():
    def run(scale, effect, ids=('a', 'b')):
        claims = [claim('semlex-' + i, i.upper(), paper='semlex', evidence='mechanism', corpus='signworld', kind='difference', verdict='holds', unit='points', effect=effect, low=effect - 1, high=effect + 1, p=.01, n=3) for i in ids]
        return dict(claims=claims, rows=[], provenance=dict(parameters=dict(scale=scale, seeds='0'), git=dict(commit=None, dirty=False), date='2026-01-01'))
    small, large = run('smoke', 9.), run('cpu', 2., ('a',))
    both = claims_frame(small, large)
    assert both['claim'].tolist() == ['A', 'B'] and both['ours'].str.startswith('2.00').tolist() == [True, False]
    assert both['run'].str.startswith('reference: cpu').tolist() == [True, False] and both['run'][1] == 'this run'
    assert claims_frame(large, small)['run'][0] == 'this run'


def test_the_paper_column_has_the_digits_that_were_printed():
    cells = {(p, t['id'], r['name'], c['name']): (r['values'][c['name']], c.get('decimals')) for p, x in papers().items() for t in x['tables'] for c in t['columns'] for r in t['rows']}
    table = paper_ours(dict(rows=[]), tables=[('cico', 'ablation'), ('sclslt', 'main')]).set_index(['table', 'row', 'column'])['paper']
    for (id, row, column), text in table.items():
        x, places = next(v for k, v in cells.items() if k[1:] == (id, row, column) and k[0] == {'ablation': 'cico', 'main': 'sclslt'}[id])
        assert float(text) == x and (places is None or len(text.partition('.')[2]) == places)
    assert {'54.0', '26.00', '25.30'} <= set(table)


@pytest.mark.parametrize('edit', [lambda r: r['rows'][0].update(value='3'), lambda r: r['rows'][0].update(value=True), lambda r: r['provenance'].update(git=None), lambda r: r['provenance'].update(parameters=None)])
def test_a_result_that_would_break_its_readers_is_refused(tmp_path, edit):
    r = json.loads(json.dumps(save_result(tmp_path / 'a.json', '99_toy', 'Toy', [made_cell(3.)], [], provenance=MADE)))
    edit(r)
    with pytest.raises(InputError): check_result(r)
