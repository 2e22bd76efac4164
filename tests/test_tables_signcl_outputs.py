"SignCL Table 3 re-scored: by hand on small input, and known answers on the released outputs."
import json

import pytest

from signbook.corpora import CorpusError, load_csl_daily_texts
from signbook.metrics import bleu, rouge_l
from signbook.tables import signcl_outputs as sc


def outputs(folder, hyps, refs):
    (folder / 'hypotheses.txt').write_text(hyps, encoding='utf-8')
    (folder / 'references.txt').write_text(refs, encoding='utf-8')
    return folder


def test_outputs_need_as_many_hypotheses_as_references(tmp_path):
    assert sc.load_outputs(outputs(tmp_path, 'a b\n\n', 'a\nb\n')) == (['a b', ''], ['a', 'b'])
    with pytest.raises(CorpusError, match='hypotheses.txt: lines: expected 2 as in references.txt, found 1'):
        sc.load_outputs(outputs(tmp_path, 'a\n', 'a\nb\n'))
    with pytest.raises(CorpusError, match='references.txt: lines: expected at least one sentence'):
        sc.load_outputs(outputs(tmp_path, 'a\n', ''))


def test_outputs_of_another_encoding_or_none_are_refused(tmp_path):
    with pytest.raises(CorpusError, match='hypotheses.txt: file'):
        sc.load_outputs(tmp_path)
    outputs(tmp_path, 'a', 'b')
    (tmp_path / 'references.txt').write_bytes(b'\xff\xfe\xfa')
    with pytest.raises(CorpusError, match='references.txt: byte 0: expected UTF-8'):
        sc.load_outputs(tmp_path)


def test_rouge_over_distinct_tokens():
    assert sc.rouge_l_distinct(['a c a', 'a b', ''], ['a b a', 'a b', 'a']).tolist() == [50, 100, 0]
    with pytest.raises(ValueError):
        sc.rouge_l_distinct(['a'], ['a', 'b'])


def test_plain_text_and_subsequences():
    assert sc.plain_text(' 今 天 １２？') == '今天12?'
    assert sc.is_subsequence('', 'a') and sc.is_subsequence('ac', 'abc') and not sc.is_subsequence('ca', 'abc')


def test_matching_keeps_the_order_or_finds_it():
    intact = ['今天很好', '明天有雨', '我们去']
    assert sc.match_references(['今天好', '明有雨', '们去'], intact).tolist() == [0, 1, 2]
    assert sc.match_references(['们去', '今天好', '明有雨'], intact).tolist() == [2, 0, 1]


def test_matching_refuses_other_counts_and_other_corpora():
    with pytest.raises(CorpusError, match='lines: expected 2 as in CSL-Daily test, found 1'):
        sc.match_references(['a'], ['a', 'b'])
    with pytest.raises(CorpusError, match='0 % of them subsequences'):
        sc.match_references(['x', 'y'], ['a', 'b'])


def test_lost_characters_by_hand():
    lost = sc.lost_characters(['天好', '明天'], ['今天好', '明明天天'])
    assert lost.values.tolist() == [['今', 1, 1, 1], ['天', 3, 0, 1], ['明', 2, 1, 1]]
    assert sc.lost_characters(['a'], ['a']).empty
    assert sc.later(['aab', 'b'], {'a'}) == 1


def test_difference_of_references():
    hyps, whole = ['今 天 天 气 好', '明 天 有 雨 吗'], ['今 天 天 气 很 好', '明 天 有 大 雨 吗']
    value, low, high = sc.bleu4_difference(hyps, hyps, whole, 50)
    assert value == pytest.approx(100 - bleu(hyps, whole, tokenize='none')['bleu4']) and low <= value <= high
    assert sc.rouge_difference(hyps, hyps, whole, 50)[0] == pytest.approx(100 - rouge_l(hyps, whole))


def test_log_lines_are_checked(tmp_path):
    good = dict(epoch=0, n_parameters=1.5, train_cl_loss=3.)
    path = tmp_path / 'log.txt'
    path.write_text(json.dumps(good) + '\n')
    assert sc.load_log(path)['train_cl_loss'].to_list() == [3.]
    for bad, says in ((json.dumps({**good, 'train_cl_loss': float('nan')}), 'line 2: train_cl_loss: expected a finite number'), ('{', 'line 2: expected a JSON object'), ('[]', 'line 2: epoch')):
        path.write_text(json.dumps(good) + '\n' + bad + '\n')
        with pytest.raises(CorpusError, match=says):
            sc.load_log(path)


def test_claims_need_their_cells():
    assert sc.all_claims([]) == []


@pytest.fixture(scope='module')
def released(real):
    if not (real / 'signcl-outputs' / 'hypotheses.txt').is_file():
        pytest.skip('no real data: signcl-outputs')
    return sc.load_outputs(real / 'signcl-outputs')


def test_the_figure_says_which_references_there_are():
    made = lambda name: sc.cell('signcl', 'references', name, 'BLEU-4', 15., low=14., high=16., evidence='rescored', corpus='csl-daily', scale='smoke', n=9)
    title = lambda *names: sc.bleu_figure(dict(rows=[made(n) for n in names])).axes[0].get_title(loc='left')
    assert title('as released') == 'The released hypotheses, references as released' and title('as released', 'intact') == 'The same hypotheses, two sets of references'


def test_real_scores_against_released_references(released):
    assert len(released[0]) == 1176
    assert [round(bleu(*released, tokenize='none')[f'bleu{n}'], 2) for n in range(1, 5)] == [46.83, 32.20, 22.35, 15.99]
    assert round(rouge_l(*released), 2) == 45.49
    assert round(sc.rouge_l_distinct(*released).mean(), 2) == 47.92


def test_real_scores_against_intact_references(real, released):
    if not (real / 'csl-daily').is_dir():
        pytest.skip('no real data: csl-daily')
    short = [sc.plain_text(r) for r in released[1]]
    texts = [sc.plain_text(t) for t in load_csl_daily_texts(real / 'csl-daily').values()]
    full = [texts[i] for i in sc.match_references(short, texts)]
    ours, whole = ([' '.join(t) for t in x] for x in ([sc.plain_text(h) for h in released[0]], full))
    assert bleu(ours, whole, tokenize='none')['bleu4'] == pytest.approx(14.09, abs=.2)
    assert rouge_l(ours, whole) == pytest.approx(43.54, abs=.2)
    assert sum(map(sc.is_subsequence, short, full)) >= .9 * len(full)
