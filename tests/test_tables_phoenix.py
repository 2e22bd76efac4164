"PHOENIX-2014T label statistics: by hand on small input, and known answers on the real labels."
import gzip
import pickle

import numpy as np
import pandas as pd
import pytest

from signbook.corpora import CorpusError
from signbook.tables import phoenix as px


def record(name, text='am tag regen .', gloss='TAG REGEN', states='4 5 6 4 5 6 3172 0'):
    return dict(name=name, signer='Signer01', gloss=gloss, text=text, num_frames=len(states.split()), alignments=dict(pami0=states))


def write(path, records):
    path.write_bytes(gzip.compress(pickle.dumps(records)))


@pytest.fixture
def small(tmp_path):
    for s in px.SPLITS:
        write(tmp_path / f'phoenix14t.{s}', [record(f'{s}/a'), record(f'{s}/b', 'im norden schnee und eis .', 'SCHNEE', '1 2 3 3')])
        write(tmp_path / f'labels.{s}', {f'{s}/{n}': dict(name=f'{s}/{n}', text=t, gloss=g, length=8) for n, t, g in (('b', 'im norden schnee und eis', ''), ('a', 'am tag regen', 'TAG'))})
    return tmp_path


def test_final_period_is_no_word():
    assert px.spoken_words('am tag .') == px.spoken_words(' am tag ') == ['am', 'tag']
    assert px.spoken_words('z. b. heute .') == ['z.', 'b.', 'heute']


def test_labels_count_words_tokens_and_glosses(small):
    labels = px.load_labels(small)
    train = labels[labels['split'] == 'train']
    assert train[['words', 'tokens', 'glosses', 'frames']].values.tolist() == [[3, 4, 2, 8], [5, 6, 1, 4]]


def test_two_means():
    assert px.mean_of_ratios([4, 6], [1, 6], 50)[0] == 2.5
    assert px.ratio_of_sums([4, 6], [1, 6], 50) == pytest.approx((10 / 7, 1, 4))


def test_interval_of_the_ratio_is_that_of_the_mean_where_denominators_are_equal():
    x = np.random.default_rng(0).normal(size=60)
    assert px.ratio_of_sums(x, np.ones(60), 500) == pytest.approx(px.mean_of_ratios(x, np.ones(60), 500))


def test_passes_cut_where_the_word_begins_again():
    assert px.pass_lengths([4, 4, 5, 6, 4, 5, 6, 6]).tolist() == [4, 4]
    assert px.pass_lengths([4, 5, 6, 0, 4, 5, 6]).tolist() == [3, 3]
    assert px.pass_lengths([3172, 3173, 0]).tolist() == []


def test_lengths_of_passes_add_up_to_those_of_runs():
    states = np.random.default_rng(1).integers(0, 12, 500)
    assert px.pass_lengths(states).sum() == px.LENGTHS['runs'](states).sum() == (states > 0).sum()


def test_frame_shares_are_shares():
    assert sum(px.frame_shares([0, 4, 5, 3172]).values()) == 100


def test_margins_by_hand():
    g = pd.DataFrame(dict(frames=[100, 30], words=[10, 10], glosses=[5, 4]))
    assert px.margins(g, 2.3).tolist() == pytest.approx([23, 10])
    assert px.margins(g, None).tolist() == [20, 10]
    assert px.margins(g, None, 0).tolist() == [20, 7.5]


def test_gfslt_labels_come_in_the_order_of_the_annotation(small):
    fields = px.load_gfslt_labels(small, px.load_labels(small))
    assert fields['name'].to_list()[:2] == ['train/a', 'train/b']
    assert fields['glosses'].to_list()[:2] == [1, 0]
    assert fields['gold'].to_list()[:2] == ['TAG REGEN', 'SCHNEE']


def test_gfslt_labels_of_other_videos_are_refused(small):
    write(small / 'labels.dev', {'x': dict(name='x', text='a', gloss='A', length=1)})
    with pytest.raises(CorpusError, match='labels.dev: name: expected the 2 videos of phoenix14t.dev, found 1, 0 of them the same'):
        px.load_gfslt_labels(small, px.load_labels(small))


def test_a_video_without_words_is_refused(small):
    write(small / 'phoenix14t.dev', [record('dev/a', text='.')])
    with pytest.raises(CorpusError, match='dev/a: expected at least one word, gloss and frame'):
        px.load_labels(small)


def test_histograms_hold_every_video_and_segment(small):
    labels = px.load_labels(small)
    cells = px.histogram_rows(labels, 'smoke', longest=3, widest=4)
    assert sum(c['value'] for c in cells if c['table'] == 'segment histogram') == 3
    for z in px.FACTORS:
        assert sum(c['value'] for c in cells if (c['table'], c['row']) == ('margin histogram', z)) == 2


@pytest.fixture(scope='module')
def labels(real):
    if not (real / 'phoenix14t' / 'phoenix14t.train').is_file():
        pytest.skip('no real data: phoenix14t')
    return px.load_labels(real / 'phoenix14t')


def test_real_words_per_gloss(labels):
    ratio = (labels['words'] / labels['glosses']).groupby(labels['split']).mean().round(3)
    assert ratio.to_dict() == dict(train=1.900, dev=1.946, test=1.940)
    assert labels['split'].value_counts().to_dict() == dict(train=7096, dev=519, test=642)


def test_real_segments_and_margins(labels):
    train = labels[labels['split'] == 'train']
    x = np.concatenate(px.segment_lengths(train))
    assert (round(x.mean(), 2), np.median(x), np.bincount(x).argmax()) == (12.75, 11, 8)
    raw, m = px.margins(train, 2.3, 0), px.margins(train, 2.3)
    assert (round(raw.mean(), 2), round(np.median(m), 2), round(100 * (raw < 10).mean(), 1)) == (19.79, 19.46, 2.1)
    assert round(train['frames'].sum() / train['glosses'].sum(), 1) == 15.0


def test_real_gloss_field_of_gfslt(real, labels):
    if not (real / 'phoenix14t-gfslt' / 'labels.train').is_file():
        pytest.skip('no real data: phoenix14t-gfslt')
    fields = px.load_gfslt_labels(real / 'phoenix14t-gfslt', labels)
    some = fields[fields['glosses'] > 0]
    assert (some['words'] / some['glosses']).groupby(some['split']).mean().round(3).to_dict() == dict(train=1.911, dev=2.100, test=2.095)
    test = fields[fields['split'] == 'test']
    assert px.field_wer(test['gloss'].to_list(), test['gold'].to_list(), 50)[0] == pytest.approx(22.73, abs=.01)
