"""signbook.metrics against golden values, slow obvious versions and bad input."""
import json, os, warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU, CHRF

from signbook.core import InputError
from signbook.metrics import *
from signbook.metrics import _sacrebleu_p

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(os.environ.get('SIGNBOOK_GOLDEN') or ROOT.parent/'shared'/'golden')
needs_golden = pytest.mark.skipif(not (GOLDEN/'slt.json').exists() or not (GOLDEN/'retrieval.json').exists(), reason='no golden values')


def golden(name): return json.loads((GOLDEN/name).read_text(encoding='utf-8'))


def golden_cases(): return golden('slt.json')['text_cases'] if (GOLDEN/'slt.json').exists() else []


def close(a, b, rel=1e-9): assert a == pytest.approx(b, rel=rel, abs=1e-9)


# golden values

@needs_golden
@pytest.mark.parametrize('case', golden_cases(), ids=lambda c: c['name'])
def test_text_golden(case):
    hyp, ref = case['hyp'], case['ref']
    close({k: v for k, v in bleu(hyp, ref, 'neccam').items() if k != 'signature'}, case['bleu'])
    ours = bleu(hyp, ref)
    close([ours[f'bleu{n}'] for n in (1, 2, 3, 4)], [case['sacrebleu220_maxorder'][str(n)] for n in (1, 2, 3, 4)])
    close(ours['bleu4'], case['sacrebleu220_13a']['score'])
    assert ours['signature'].rsplit('|version:')[0] == case['sacrebleu220_13a']['signature'].rsplit('|version:')[0]
    close(rouge_l(hyp, ref), case['rouge'])
    close(list(rouge_l_each(hyp, ref)/100), case['rouge_each'])
    close(chrf(hyp, ref), case['sacrebleu220_chrf2'])
    close(chrf(hyp, ref, 'neccam'), case['chrf'])
    w = case['wer']
    close(wer(hyp, ref), {'wer': w['wer'], 'sub': w['sub_rate'], 'ins': w['ins_rate'], 'del': w['del_rate']})


@needs_golden
def test_wer_length_golden():
    for n, want in golden('slt.json')['wer_uint8_overflow']['values'].items():
        n = int(n)
        ours = wer([' '.join(f'h{i}' for i in range(n//2))], [' '.join(f'r{i}' for i in range(n))])
        close(ours['wer'], 100)
        if isinstance(want, dict): close([ours['sub'], ours['ins'], ours['del']], [want['sub_rate'], want['ins_rate'], want['del_rate']])


@needs_golden
def test_cleanup_golden():
    for row in golden('slt.json')['phoenix_cleanup']:
        assert clean_phoenix_2014_trans(row['in']) == row['trans']
        assert clean_phoenix_2014(row['in']) == row['p2014']


@needs_golden
@pytest.mark.parametrize('name', ['metrics_square60', 'metrics_grouped'])
@pytest.mark.parametrize('ties', ['official', 'pessimistic'])
def test_retrieval_golden(name, ties):
    z, want = np.load(GOLDEN/f'{name}.npz'), golden('retrieval.json')[name]
    sizes = z['groups'] if len(z['groups']) == z['sim'].shape[1] and z['sim'].shape[0] == z['groups'].sum() else None
    groups = None if sizes is None or name == 'metrics_square60' else np.repeat(np.arange(len(sizes)), sizes)
    ours = retrieval_metrics(z['sim'], groups, ties)
    for way, theirs in (('t2v', want['T2V']), ('v2t', want['V2T'])):
        for k, v in {'R1': 'R1', 'R5': 'R5', 'R10': 'R10', 'MeanR': 'MeanR', 'MedR': 'MedianR'}.items():
            if ties == 'official' or k != 'MedR': assert ours[way][k] == pytest.approx(theirs[v], rel=1e-6), (way, k)
    close(ours['t2v']['MRR'], 100*np.mean(1/(np.array(want['T2V']['cols']) + 1)))


# slow obvious versions

def slow_wer(ref, hyp, costs):
    sub, ins, dele = costs
    t = [[i*dele + j*ins for j in range(len(hyp) + 1)] for i in range(len(ref) + 1)]
    for i in range(1, len(ref) + 1):
        for j in range(1, len(hyp) + 1):
            t[i][j] = min(t[i-1][j-1] + (0 if ref[i-1] == hyp[j-1] else sub), t[i][j-1] + ins, t[i-1][j] + dele)
    i, j, n = len(ref), len(hyp), {'sub': 0, 'ins': 0, 'del': 0}
    while i > 0 or j > 0:
        if i > 0 and j > 0 and ref[i-1] == hyp[j-1]: i, j = i - 1, j - 1
        elif i > 0 and j > 0 and t[i][j] == t[i-1][j-1] + sub: i, j, n['sub'] = i - 1, j - 1, n['sub'] + 1
        elif j > 0 and t[i][j] == t[i][j-1] + ins: j, n['ins'] = j - 1, n['ins'] + 1
        else: i, n['del'] = i - 1, n['del'] + 1
    return t, (n['sub'], n['ins'], n['del'])


def test_wer_slow():
    rng = np.random.default_rng(0)
    for _ in range(300):
        ref, hyp = (rng.integers(0, 5, rng.integers(0, 16)).tolist() for _ in range(2))
        costs = tuple(rng.integers(1, 8, 3).tolist())
        table, counts = slow_wer(ref, hyp, costs)
        assert edit_costs(ref, hyp, costs).tolist() == table
        assert edit_counts(ref, hyp, costs) == counts


def test_wer_equal_costs():
    rng = np.random.default_rng(1)
    refs, hyps = ([' '.join(rng.choice(list('abcd'), rng.integers(0, 12))) for _ in range(80)] for _ in range(2))
    ours = wer(hyps, refs, (1, 1, 1))
    counts = np.sum([edit_counts(r.split(), h.split(), (1, 1, 1)) for r, h in zip(refs, hyps)], axis=0)
    close(ours['wer'], 100*counts.sum()/sum(len(r.split()) for r in refs))
    assert ours == wer(hyps, refs, (3, 3, 3))
    assert wer(hyps, refs)['wer'] >= ours['wer']
    assert wer(['a\tb  c '], ['a b c'], (1, 1, 1))['wer'] == 0


def test_wer_long():
    rng = np.random.default_rng(2)
    ref = rng.integers(0, 400, 3000).astype(str).tolist()
    assert edit_counts(ref, ref) == (0, 0, 0)
    assert edit_counts(ref, ref[:-7]) == (0, 0, 7)
    assert edit_counts(ref[:500], ['x']*500) == (500, 0, 0)


def test_lcs_slow():
    rng = np.random.default_rng(3)
    for _ in range(200):
        a, b = (rng.integers(0, 4, rng.integers(0, 90)).tolist() for _ in range(2))
        t = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, x in enumerate(a):
            for j, y in enumerate(b): t[i+1, j+1] = t[i, j] + 1 if x == y else max(t[i, j+1], t[i+1, j])
        assert lcs_length(a, b) == t[-1, -1]


def corpus(n=60, seed=0):
    rng, words = np.random.default_rng(seed), np.array('der wind weht am tag im norden , süden. Regen'.split())
    refs = [rng.choice(words, rng.integers(4, 12)) for _ in range(n)]
    hyps = [np.where(rng.random(len(r)) < .7, r, rng.choice(words, len(r))) for r in refs]
    return [' '.join(h) for h in hyps], [' '.join(r) for r in refs]


@pytest.mark.parametrize('order', [1, 2, 3, 4])
def test_bleu_is_sacrebleu(order):
    hyps, refs = corpus()
    close(bleu(hyps, refs)[f'bleu{order}'], BLEU(max_ngram_order=order).corpus_score(hyps, [refs]).score)
    floor = BLEU(max_ngram_order=order, tokenize='none', smooth_method='floor', smooth_value=0)
    close(bleu(hyps, refs, 'neccam')[f'bleu{order}'], floor.corpus_score(hyps, [refs]).score)


def test_chrf_conventions():
    hyps, refs = corpus()
    long = [i for i, r in enumerate(refs) if len(r.replace(' ', '')) >= 6]
    h, r = [hyps[i] for i in long], [refs[i] for i in long]
    close(chrf(h, r), chrf(h, r, 'neccam'))
    close(chrf(h, r), CHRF().corpus_score(h, [r]).score)
    assert chrf(h + ['starker wind'], r + ['wind']) > chrf(h + ['starker wind'], r + ['wind'], 'neccam')
    with pytest.raises(InputError): chrf(h, r, 'neccam', word_order=2)


def test_ranks_slow():
    rng = np.random.default_rng(4)
    s, y = rng.integers(0, 4, (200, 9)), rng.integers(0, 9, 200)
    slow = [1 + sum(v >= row[t] for j, v in enumerate(row) if j != t) for row, t in zip(s, y)]
    assert true_rank(s, y).tolist() == slow
    close(topk_accuracy(s, y, 3), 100*np.mean(np.array(slow) <= 3))
    close(mean_reciprocal_rank(s, y), np.mean(1/np.array(slow)))
    assert true_rank(torch.tensor(s, dtype=torch.bfloat16).requires_grad_(), torch.tensor(y)).tolist() == slow
    assert topk_accuracy(np.zeros((5, 3)), [0]*5) == 0
    assert mean_reciprocal_rank(np.eye(4), range(4), 'openhands') == .5


def literal_official(sim, groups):
    "Both quirks written out: sorted scores minus the true score, and a double argsort."
    g = sim.shape[1]
    rows = np.array([sim[groups == i].max(0) for i in range(g)]).T
    cols = np.where(np.sort(-rows, 1) - np.diag(-rows)[:, None] == 0)[1]
    s = torch.tensor(sim)
    rank = s.argsort(1, descending=True).argsort(1)[torch.arange(len(s)), torch.tensor(groups)]
    return cols, np.median(cols) + 1, rank.numpy(), float(torch.median(rank + 1))


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('tied', [False, True])
def test_retrieval_literal(seed, tied):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.concatenate([np.arange(12), rng.integers(0, 12, 8)]))
    sim = rng.normal(size=(20, 12)); sim = sim.round(0) if tied else sim
    cols, med_t, rank, med_v = literal_official(sim, groups)
    ours = retrieval_metrics(sim, groups, 'official')
    for way, r, med in (('t2v', cols, med_t), ('v2t', rank, med_v)):
        close([ours[way][k] for k in ('R1', 'R5', 'R10', 'MeanR', 'MRR', 'MedR')],
              [*(100*np.mean(r < k) for k in (1, 5, 10)), r.mean() + 1, 100*np.mean(1/(r + 1)), med])
    if not tied:
        strict = retrieval_metrics(sim, groups)
        close({k: v for k, v in strict['v2t'].items() if k != 'MedR'}, {k: v for k, v in ours['v2t'].items() if k != 'MedR'})
        close(strict['t2v'], ours['t2v'])


def test_retrieval_no_credit():
    assert retrieval_metrics(np.zeros((6, 6)))['v2t'] == pytest.approx({'R1': 0, 'R5': 0, 'R10': 100, 'MedR': 6, 'MeanR': 6, 'MRR': 100/6})
    assert retrieval_metrics([[2.]]) == {w: {'R1': 100, 'R5': 100, 'R10': 100, 'MedR': 1, 'MeanR': 1, 'MRR': 100} for w in ('t2v', 'v2t')}


# clean-up

@pytest.mark.parametrize('f', [clean_phoenix_2014, clean_phoenix_2014_trans])
def test_cleanup_plain(f):
    assert f('') == f('  ') == ''
    assert f(' REGEN  WIND WIND ') == 'REGEN WIND'
    assert f('SÜD SÜD') == 'SÜD'
    assert f('A B') == 'A B'
    assert f('JETZT A B C D WETTER') == 'JETZT A+B+C+D WETTER'
    assert f('JETZT S C H E') == 'JETZT S+C+H+E'


def test_cleanup_differs():
    assert clean_phoenix_2014_trans('__PU__ ZEIGEN poss-ICH') == 'ZEIGEN poss-ICH'
    assert clean_phoenix_2014('__PU__ ZEIGEN poss-ICH') == 'ZEIGEN-BILDSCHIRM ICH'
    assert clean_phoenix_2014('HABEN2 S0NNE lh-DA qu-WAS') == 'HABEN SONNE DA WAS'


# intervals and tests

def test_interval():
    x = np.random.default_rng(0).normal(10, 2, 400)
    low, high = bootstrap_interval(x)
    assert low < x.mean() < high
    close([low, high], [x.mean() - 1.96*x.std()/20, x.mean() + 1.96*x.std()/20], rel=.01)
    assert bootstrap_interval(x, level=.99)[1] > high
    assert bootstrap_interval(x, np.median)[0] < np.median(x)
    close(bootstrap_interval(x[:50], lambda v: v.mean()), bootstrap_interval(x[:50]))
    assert bootstrap_interval(x) == bootstrap_interval(x) != bootstrap_interval(x, seed=1)


def test_interval_coverage():
    rng, hit = np.random.default_rng(0), 0
    for i in range(200):
        low, high = bootstrap_interval(rng.normal(size=60), resamples=400, seed=i)
        hit += low < 0 < high
    assert 178 <= hit <= 199


def test_degenerate():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert bootstrap_interval([7]) == bootstrap_interval([7]*5, np.median) == (None, None)
        assert paired_test([1], [3], 'bootstrap') == {'effect': -2, 'low': None, 'high': None, 'p': None, 'n': 1}
        same = paired_test([.3, .2, .1], [.2, .1, 0])
        assert same['effect'] == pytest.approx(.1) and [same[k] for k in ('low', 'high', 'p', 'n')] == [None, None, None, 3]
        assert paired_test([3, 4], [1, 2], margin=5)['p'] is None and paired_test([1, 2], [1, 2], margin=5)['low'] == 0
        assert paired_test([0, 0], [0, 0])['p'] == 1
        assert paired_test([.1 + .2]*3, [.3]*3)['p'] == 1
        assert paired_test([2, 3], [1, 2], 'bootstrap', resamples=99)['p'] == .01
        assert bleu_interval(['a b c d e'], ['a b c d e']) == bleu_interval(['a b']*3, ['a b c']*3) == (None, None)
        assert paired_bleu_test(['a b'], ['a'], ['a b'])['p'] is None


def test_paired_null():
    rng, ps = np.random.default_rng(0), []
    for i in range(200):
        a, b = rng.normal(size=(2, 40))
        ps.append(paired_test(a, b, 'bootstrap', resamples=300, seed=i)['p'])
    assert .01 <= np.mean(np.array(ps) < .05) <= .11


def test_bleu_interval():
    hyps, refs = corpus(150)
    low, high = bleu_interval(hyps, refs)
    own = BLEU(force=True).corpus_score(hyps, [refs], n_bootstrap=1000)
    assert low < own.score < high
    assert (high - low)/2 == pytest.approx(own._ci, rel=.1)
    assert bleu_interval(hyps, refs, order=1)[0] > high


def test_paired_bleu():
    (hyps, refs), (other, _) = corpus(150), corpus(150, 0)
    worse = [' '.join(w if i % 4 else 'x' for i, w in enumerate(h.split())) for h in other]
    out = paired_bleu_test(hyps, worse, refs)
    close(out['effect'], bleu(hyps, refs)['bleu4'] - bleu(worse, refs)['bleu4'])
    assert out['low'] < out['effect'] < out['high'] and out['low'] > 0 and out['p'] < .01
    back = paired_bleu_test(worse, hyps, refs)
    close([back['effect'], back['low'], back['high']], [-out['effect'], -out['high'], -out['low']], rel=1e-6)
    assert back['p'] == out['p'] == _sacrebleu_p(BLEU(force=True), hyps, worse, refs, 1000)
    assert paired_bleu_test(hyps, hyps, refs)['p'] == 1


# bad input

S, L, T = [[.1, .9], [.8, .2]], [1, 0], ['a b', 'c']
BAD = {
    'scores empty': lambda: topk_accuracy([], []), 'scores 1-d': lambda: true_rank([1, 2], [0]), 'scores NaN': lambda: topk_accuracy([[np.nan, 1]], [0]),
    'scores None': lambda: topk_accuracy(None, [0]), 'scores ragged': lambda: topk_accuracy([[1, 2], [3]], L), 'scores text': lambda: topk_accuracy([['x', 'y']], [0]),
    'labels short': lambda: topk_accuracy(S, [1]), 'labels high': lambda: topk_accuracy(S, [1, 2]), 'labels negative': lambda: mean_reciprocal_rank(S, [0, -1]),
    'labels float': lambda: topk_accuracy(S, [1., 0.]), 'labels bool': lambda: topk_accuracy(S, [True, False]), 'labels None': lambda: topk_accuracy(S, None),
    'labels ragged': lambda: topk_accuracy(S, [[1], 0]), 'k zero': lambda: topk_accuracy(S, L, 0), 'k float': lambda: topk_accuracy(S, L, 1.5), 'convention': lambda: mean_reciprocal_rank(S, L, 'half'),
    **{f'{f.__name__} {k}': (lambda f=f, a=a: f(*a)) for f in (bleu, rouge_l, rouge_l_each, chrf, wer, bleu_counts, bleu_interval)
       for k, a in {'empty': ([], []), 'unequal': (T, ['a']), 'bare': ('ab', ['a', 'b']), 'bare reference': (['a'], 'a'), 'none': (None, T), 'item': (['a', None], T), 'bytes': ([b'a', 'b'], T), 'number': (3, T)}.items()},
    'bleu convention': lambda: bleu(T, T, 'necam'), 'bleu tokenizer': lambda: bleu(T, T, tokenize='14a'), 'bleu order': lambda: bleu_interval(T, T, order=5),
    'rouge beta': lambda: rouge_l(T, T, 0), 'chrf order': lambda: chrf(T, T, char_order=0), 'wer costs two': lambda: wer(T, T, (1, 2)), 'wer costs float': lambda: wer(T, T, (4., 3, 3)),
    'wer costs zero': lambda: wer(T, T, (0, 1, 1)), 'wer costs number': lambda: wer(T, T, 3), 'wer no words': lambda: wer(['a', 'b'], ['', ' ']),
    'gloss None': lambda: clean_phoenix_2014(None), 'gloss list': lambda: clean_phoenix_2014_trans(['A']),
    'similarity empty': lambda: retrieval_metrics(np.zeros((0, 0))), 'similarity NaN': lambda: retrieval_metrics([[np.nan]]), 'similarity inf': lambda: retrieval_metrics([[np.inf]]),
    'similarity 1-d': lambda: retrieval_metrics([1., 2.]), 'groups missing': lambda: retrieval_metrics([[1., 2.]]), 'groups high': lambda: retrieval_metrics(S, [0, 2]),
    'groups hole': lambda: retrieval_metrics(S, [0, 0]), 'groups short': lambda: retrieval_metrics(S, [0]), 'ties': lambda: retrieval_metrics(S, ties='optimistic'),
    'values empty': lambda: bootstrap_interval([]), 'values NaN': lambda: bootstrap_interval([1, np.nan]), 'values inf': lambda: bootstrap_interval([1, np.inf]), 'values 2-d': lambda: bootstrap_interval(S),
    'statistic NaN': lambda: bootstrap_interval([1, 2], lambda v: np.nan),
    'level': lambda: bootstrap_interval([1, 2], level=95), 'resamples': lambda: bootstrap_interval([1, 2], resamples=0), 'seed': lambda: bootstrap_interval([1, 2], seed=-1),
    'pair unequal': lambda: paired_test([1, 2], [1]), 'pair empty': lambda: paired_test([], []), 'pair NaN': lambda: paired_test([1, np.nan], [1, 2]), 'pair method': lambda: paired_test([1], [2], 'z'),
    'pair level': lambda: paired_test([1, 2], [2, 4], level=1), 'baseline short': lambda: paired_bleu_test(T, ['a'], T), 'baseline bare': lambda: paired_bleu_test(T, 'ab', T),
}


@pytest.mark.filterwarnings('ignore::scipy.stats.DegenerateDataWarning')
@pytest.mark.parametrize('name', BAD)
def test_bad_input(name):
    with pytest.raises(InputError) as e: BAD[name]()
    assert '\n' not in str(e.value) and ': expected ' in str(e.value) and ', found ' in str(e.value)
