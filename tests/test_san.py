"""signbook.san against golden values, slow versions in float64, files and bad input."""
import gzip, json, math, pickle, random, re, subprocess, sys, textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from signbook import san
from signbook.core import InputError
from signbook.san import *
from signbook.training import FitConfig


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def near(a, b, eps): assert float((a - b).detach().abs().max()) <= eps*max(1e-300, float(b.detach().abs().max())), (a, b)


# golden values

@pytest.mark.parametrize('dtype, eps', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_loss_golden(golden, dtype, eps):
    z = {k: torch.from_numpy(v) for k, v in np.load(golden/'san_tiny_f64.npz').items()}
    f = json.loads((golden/'retrieval.json').read_text(encoding='utf-8'))['san_tiny_f64']
    B, K = f['B'], f['num_hard']
    v, t = (z[k].to(dtype).requires_grad_() for k in ('vis', 'txt'))
    log = torch.tensor(f['logit_scale_log'], dtype=torch.double, requires_grad=True)
    hard = lambda x: x[B:].unflatten(0, (B, K))
    loss = san_loss(v, t[:B], hard(t), z['video_mask'], z['text_mask'][:B], hard(z['text_mask']), scale=log.exp().to(dtype), lam=f['lam'])
    near(loss.double(), z['loss'], eps); assert f['loss'] == pytest.approx(float(z['loss']))
    loss.backward()
    for x, n in ((v, 'g_vis'), (t, 'g_txt'), (log, 'g_logit_scale')): near(x.grad.double(), z[n], max(eps, 1e-9 if dtype == torch.float64 else 2e-5))
    coarse = san_loss(v, t[:B], hard(t), z['video_mask'], z['text_mask'][:B], hard(z['text_mask']), scale=log.exp().to(dtype), lam=0)
    assert coarse.item() == pytest.approx((f['loss_i2t'] + f['loss_t2i'])/2, rel=1e-5)


def test_fine_loss_golden(golden):
    z = np.load(golden/'san_tiny_f64.npz'); f = json.loads((golden/'retrieval.json').read_text(encoding='utf-8'))['san_tiny_f64']
    assert float(fine_loss(torch.from_numpy(z['hard_i2t']))) == pytest.approx(f['loss_hard'], rel=1e-10)


def test_released_captions_golden(golden):
    f = json.loads((golden/'retrieval.json').read_text(encoding='utf-8'))['san_generate_hard_negatives']
    assert released_captions(f['batch'], f['table'], f['num_negatives'], rng=random.Random(f['seed'])) == f['out']
    random.seed(f['seed']); assert released_captions(f['batch'], f['table'], f['num_negatives']) == f['out']


# reliable signs

def slow_shares(v, t, words, tau=.07):
    out = torch.zeros(len(v), v.shape[1], t.shape[1], dtype=torch.double)
    for b in range(len(v)):
        for i in range(v.shape[1]):
            e = [math.exp(float(F.cosine_similarity(v[b, i], t[b, j], 0))/tau) if words[b, j] >= 0 else 0. for j in range(t.shape[1])]
            for j in range(t.shape[1]): out[b, i, j] = sum(x for x, w in zip(e, words[b]) if w == words[b, j])/sum(e) if words[b, j] >= 0 else 0
    return out


def test_shares_and_reliable_signs():
    g = torch.Generator().manual_seed(1)
    v, t = torch.randn(4, 5, 6, generator=g, dtype=torch.double), torch.randn(4, 7, 6, generator=g, dtype=torch.double)
    words = torch.tensor([[-1, 3, 3, 5, 1, -1, -1], [-1, 0, 1, 2, 3, 4, -1], [0, 0, 0, -1, -1, -1, -1], [-1, 9, 8, 9, 8, 7, 6]])
    near(word_shares(v, t, words), slow_shares(v, t, words), 1e-12)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1]*5, [0, 1, 0, 1, 0], [1]*5])
    want = [(int(words[b, int(p.argmax())]), b, i) for b, row in enumerate(slow_shares(v, t, words)) for i, p in enumerate(row) if mask[b, i] and p.max() > .6]
    for batch in (1, 3, 99):
        s = reliable_signs(v, t, words, mask, .6, batch=batch)
        assert list(zip(s.word.tolist(), s.clip.tolist(), s.place.tolist())) == want
        near(s.vector, F.normalize(v, dim=-1)[s.clip, s.place], 1e-14)
    assert not len(reliable_signs(v, t, words, mask, .999999).word) or reliable_signs(v, t, words, mask, .999999).probability.min() > .999999


@pytest.mark.parametrize('change, field', [(dict(words=torch.zeros(2, 3, dtype=torch.long)), 'words'), (dict(words=-torch.ones(2, 4, dtype=torch.long)), 'words'), (dict(alpha=1), 'alpha'), (dict(alpha=-.1), 'alpha'),
                                           (dict(video=torch.full((2, 3, 4), math.nan)), 'video'), (dict(text=torch.ones(2, 4, 5)), 'text'), (dict(text=torch.ones(3, 4, 4)), 'text'), (dict(video=torch.ones(0, 3, 4)), 'video'), (dict(video_mask=torch.zeros(2, 3)), 'video_mask')], ids=str)
def test_reliable_signs_bad_input(change, field):
    with pytest.raises(InputError) as e: reliable_signs(**{**dict(video=torch.ones(2, 3, 4), text=torch.ones(2, 4, 4), words=torch.zeros(2, 4, dtype=torch.long)), **change})
    assert e.value.field == field


# confusable words

@pytest.mark.parametrize('block', [1, 5, 16, 4096])
def test_confusions_are_those_of_a_loop(block):
    g = torch.Generator().manual_seed(2)
    x, w = torch.randn(70, 4, generator=g, dtype=torch.double), torch.randint(0, 9, (70,), generator=g)*2
    c = (F.normalize(x) @ F.normalize(x).T > .4) & (w[:, None] != w)
    want = torch.zeros(20, 20, dtype=torch.long)
    for i, j in c.nonzero().tolist(): want[w[i], w[j]] += 1
    count, signs = confusions(x, w, .4, 20, block)
    assert count.tolist() == want.tolist() and signs.tolist() == torch.bincount(w, minlength=20).tolist()
    assert np.array_equal(count, count.T) and not count.diagonal().any()


def test_large_counts_are_exact():
    count, signs = confusions(torch.ones(6000, 2), torch.arange(6000) % 2, block=4096)
    assert count.tolist() == [[0, 3000**2], [3000**2, 0]] and signs.tolist() == [3000, 3000]


@pytest.mark.parametrize('change, field', [(dict(words=torch.zeros(3, dtype=torch.long)), 'words'), (dict(words=torch.zeros(4)), 'words'), (dict(words=-torch.ones(4, dtype=torch.long)), 'words'), (dict(block=0), 'block'), (dict(block=10000), 'block'), (dict(vectors=torch.ones(4)), 'vectors'), (dict(words=torch.arange(4), n_words=3), 'n_words')], ids=str)
def test_confusions_bad_input(change, field):
    with pytest.raises(InputError, match=field): confusions(**{**dict(vectors=torch.ones(4, 2), words=torch.zeros(4, dtype=torch.long)), **change})


@pytest.mark.skipif(sys.platform != 'linux', reason='peak memory is read from /proc')
def test_memory_grows_with_the_signs_not_with_their_square():
    script = '''
    import re, torch
    from signbook.san import confusions
    torch.set_num_threads(1)
    peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])
    x, w = torch.randn(16000, 16), torch.randint(0, 50, (16000,))
    confusions(x[:2000], w[:2000], block=1000); start = peak()
    confusions(x, w, block=1000); print(peak() - start)
    '''
    more = int(subprocess.run([sys.executable, '-c', textwrap.dedent(script)], capture_output=True, text=True, check=True).stdout)
    assert more < 16000**2*4/1024/8, more


def test_tables_and_their_quality():
    rng = np.random.default_rng(0); W = 12; names = [f'w{i}' for i in range(W)]
    signs = rng.integers(0, 9, W); count = np.triu(rng.integers(0, 5, (W, W)), 1); count = count + count.T; count[signs == 0] = 0; count[:, signs == 0] = 0
    for rate, top in ((0, None), (.05, None), (0, 3), (.05, 2)):
        table = confusion_table(count, signs, names, rate, top)
        for i, w in enumerate(names):
            able = sorted([j for j in range(W) if signs[i] and signs[j] and count[i, j]/(signs[i]*signs[j]) > rate], key=lambda j: (-count[i, j]/(signs[i]*signs[j]), j))
            assert table.get(w, ()) == tuple(names[j] for j in able[:top])
    with pytest.raises(InputError, match='names'): confusion_table(count, signs, names[1:])
    truth = [('w0', 'w1'), ('w2', 'w1')]
    assert table_quality(pair_table(truth), truth) == dict(pairs=4, precision=100., recall=100.)
    assert table_quality(dict(w0=('w1', 'w5')), truth) == dict(pairs=2, precision=50., recall=25.)


def test_planted_look_alikes_are_mined():
    g = torch.Generator().manual_seed(0)
    form = F.normalize(torch.randn(10, 32, generator=g), dim=1); form[1] = F.normalize(form[0] + .3*form[1], dim=0)
    meaning = F.normalize(torch.randn(10, 32, generator=g), dim=1)
    words = torch.stack([torch.randperm(10, generator=g)[:4] for _ in range(60)])
    video, text = form[words] + .05*torch.randn(60, 4, 32, generator=g), form[words]*.98 + .02*meaning[words]
    signs = reliable_signs(video, text, words)
    table = confusion_table(*confusions(signs.vector, signs.word, n_words=10), [str(i) for i in range(10)])
    assert table == {'0': ('1',), '1': ('0',)}


# other miners

CAPTIONS = [f'{a} {b} in the {c}' for a in ('today', 'tomorrow') for b in ('rain', 'snow', 'wind') for c in ('north', 'south')]


def test_word_vectors_reconstruct_mutual_information():
    names = vocabulary(CAPTIONS); v = word_vectors(CAPTIONS, names, len(names), window=2)
    n = np.zeros((len(names),)*2); at = {w: i for i, w in enumerate(names)}
    for c in CAPTIONS:
        row = c.split()
        for i in range(len(row)):
            for j in range(len(row)):
                if i != j and abs(i - j) <= 2: n[at[row[i]], at[row[j]]] += 1
    with np.errstate(divide='ignore'): m = np.maximum(np.log(n*n.sum()/np.outer(n.sum(1), n.sum(0))), 0)
    w, q = np.linalg.eigh(m)
    np.testing.assert_allclose(v @ v.T, (q*np.abs(w)) @ q.T, atol=1e-8)
    assert np.array_equal(v, word_vectors(CAPTIONS, names, len(names), window=2))
    with pytest.raises(InputError): word_vectors(['a', 'b'], ['a', 'b'])


def test_guesser_hides_and_lists():
    names = vocabulary(CAPTIONS); model = WordGuesser(names, 16)
    ids, lengths = model.rows(['rain in the north', 'wind'])
    assert ids.shape == (2, 4) and lengths.tolist() == [4, 1]
    assert math.isfinite(float(san.guess_loss(model, (ids, lengths))))
    trained = train_guesser(CAPTIONS*20, names, 16, FitConfig(epochs=6, batch_size=32, lr=1e-2))
    table = guess_table(trained, CAPTIONS, 2, places=3)
    assert table['north'][0] == 'south' and set(table['rain']) == {'snow', 'wind'} and all(w not in row for w, row in table.items())
    again = train_guesser(CAPTIONS*20, names, 16, FitConfig(epochs=6, batch_size=32, lr=1e-2))
    assert guess_table(again, CAPTIONS, 2, places=3) == table


def test_guesser_leaves_out_captions_without_a_known_word():
    names = vocabulary(['a b', 'a b', 'c'], 2); c = FitConfig(epochs=2, batch_size=2)
    with_rare, without = (train_guesser(x, names, 16, c) for x in (['a b', 'a b', 'c', ''], ['a b', 'a b']))
    assert all(torch.equal(p, q) for p, q in zip(with_rare.parameters(), without.parameters()))
    with pytest.raises(InputError, match='captions'): train_guesser(['c', ''], names, 16, c)


def test_guess_table_is_the_mean_of_single_guesses():
    names = vocabulary(CAPTIONS); torch.manual_seed(0); model = WordGuesser(names, 8).eval()
    table, total = guess_table(model, CAPTIONS, 20, places=10**6), np.zeros((len(names),)*2)
    with torch.no_grad():
        for c in CAPTIONS:
            ids, n = model.rows([c])
            for p, w in enumerate(c.split()):
                x = ids.clone(); x[0, p] = len(names); total[names.index(w)] += model(x, n)[0, p].softmax(0).numpy()
    np.fill_diagonal(total, -1)
    for i, w in enumerate(names): assert set(table[w][:3]) == {names[j] for j in np.argsort(-total[i])[:3]}


def test_nearest_words_and_random_table():
    s = np.array([[0, .5, np.nan], [.5, 0, .1], [np.nan, .1, 0]])
    assert nearest_words(s, 'abc') == dict(a=('b',), b=('a', 'c'), c=('b',)) and np.isnan(s[0, 2]) and s[0, 0] == 0
    t = random_table([str(i) for i in range(50)], 7, 3)
    assert all(len(set(r)) == 7 and w not in r for w, r in t.items()) and t != random_table([str(i) for i in range(50)], 7, 4)
    with pytest.raises(InputError): nearest_words(s, 'ab')


# files

def test_tables_from_files(tmp_path):
    want = dict(a=('b', 'c'), c=('a',))
    (tmp_path/'t.json').write_text(json.dumps(want)); (tmp_path/'t.jsonl').write_text('\n'.join(json.dumps(dict(word=w, candidates=r)) for w, r in want.items()) + '\n\n')
    (tmp_path/'t.pkl.gz').write_bytes(gzip.compress(pickle.dumps({w: list(r) for w, r in want.items()})))
    for name in ('t.json', 't.jsonl', 't.pkl.gz'): assert load_table(tmp_path/name) == load_table(str(tmp_path/name), ['a']) == want
    with pytest.raises(InputError, match='t.json: words: expected at least one word of the corpus'): load_table(tmp_path/'t.json', ['x'])


@pytest.mark.parametrize('name, text, message', [
    ('t.json', '{"a": []}', r'a: expected a list'), ('t.json', '{"a": "bc"}', 'a list'), ('t.json', '{"a": ["b c"]}', 'without white space'), ('t.json', '{"a": ["a"]}', 'other than the word itself'), ('t.json', '{"a": [1]}', 'found 1'), ('t.json', '{"a": [null]}', 'found None'),
    ('t.json', '[1]', 'an object'), ('t.json', '{', 'valid JSON'), ('t.json', '{"a b": ["c"]}', "found 'a b'"), ('t.jsonl', '\n{"word": "a"}', 'line 2'), ('t.jsonl', '{"word": "a", "candidates": ["b"]}\n{"word": "a", "candidates": ["b"]}', 'line 2: word: expected each word once'),
    ('t.jsonl', '[', 'line 1'), ('t.jsonl', '', 'at least one word'), ('t.csv', '', 'found .csv'), ('missing.jsonl', None, 'no such file'), ('missing.json', None, 'no such file')])
def test_tables_bad_files(tmp_path, name, text, message):
    if text is not None: (tmp_path/name).write_text(text)
    with pytest.raises(InputError, match=message) as e: load_table(tmp_path/name)
    assert name in e.value.where


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self): return print, ('ran',)
    (tmp_path/'t.pkl').write_bytes(pickle.dumps({'a': Evil()}))
    with pytest.raises(InputError, match='plain data'): load_table(tmp_path/'t.pkl')


# captions

TABLE = dict(regen=('schnee', 'wind', 'regen'), norden=('sueden',), morgen=('heute', 'abend'))


@pytest.mark.parametrize('swap', [1, 2, 5])
def test_hard_captions_differ_in_as_many_words_and_from_each_other(swap):
    batch = ['morgen regen im norden', 'heute sonne', 'im norden regen morgen regen']
    for seed in range(20):
        hard = hard_captions(batch, TABLE, 6, swap, random.Random(seed))
        for c, row in zip(batch, hard):
            assert len(set(row)) == len(row) <= 6 and c not in row
        for k in (0, 2):
            for x in hard[k]: assert len({a for a, b in zip(batch[k].split(), x.split()) if a != b}) == min(swap, 3)
        assert set(hard[1]) == {batch[0], batch[2]}
    assert hard_captions(['a', 'a'], TABLE) == [[], []] and hard_captions(['norden'], TABLE, 5) == [['sueden']]


def test_released_captions_have_the_defects():
    hard = [x for _ in range(200) for x in released_captions(['regen regen', 'wind'], TABLE, 5, 2, random.Random(_))[0]]
    assert 'regen regen' in hard and len(set(hard)) == 3
    for batch in (['x'], ['x', 'x']):
        with pytest.raises(InputError, match='another text in the batch'): released_captions(batch, TABLE)


def by_the_rules(captions, table, n, rng):
    "The release's rules, one random number after the other."
    out = []
    for c in captions:
        known = list(filter(table.__contains__, c.split()))
        if not known: out.append(rng.choices([o for o in captions if o != c], k=n)); continue
        drafts = []
        for _ in range(n):
            pairs = [(w, rng.choice(table[w])) for w in rng.sample(known, min(2, len(known)))]
            drafts.append(' '.join(next((b for a, b in pairs[::-1] if a == w), w) for w in c.split()))
        out.append(drafts)
    return out


@pytest.mark.parametrize('batch, table', [
    (['a b', 'a b', 'c d'], dict(x=['y'])), (['rain and wind', 'snow'], dict(rain=['wind'], wind=['snow'])), (['rain rain', 'rain rain and wind wind'], dict(rain=['snow', 'wind', 'sun'], wind=['rain', 'sun']))])
def test_released_captions_follow_the_rules(batch, table):
    for seed in range(30): assert released_captions(batch, table, 5, rng=random.Random(seed)) == by_the_rules(batch, table, 5, random.Random(seed))
    assert 'a b' not in released_captions(['a b', 'a b', 'c d'], dict(x=['y']), 50)[0]
    assert set(released_captions(['rain and wind'], dict(rain=['wind'], wind=['snow']), 20)[0]) == {'wind and snow'}


# loss

def test_fine_loss_by_hand_and_missing_captions():
    z = torch.tensor([[2., 1, 0], [0, 3, 9]], dtype=torch.double, requires_grad=True)
    valid = torch.tensor([[True, True], [True, False]])
    loss = fine_loss(z, valid); loss.backward()
    want = (math.log(1 + math.exp(-1) + math.exp(-2)) + math.log(1 + math.exp(3)))/2
    assert float(loss) == pytest.approx(want) and z.grad[1, 2] == 0 and z.grad.isfinite().all()
    assert float(fine_loss(z, torch.zeros(2, 2, dtype=torch.bool))) == 0
    assert float(fine_loss(z, valid.long())) == float(loss)
    for bad in (torch.ones(2, 3, dtype=torch.bool), torch.full((2, 2), 2)):
        with pytest.raises(InputError, match='valid'): fine_loss(z, bad)


def test_san_loss_adds_lambda_times_fine():
    g = torch.Generator().manual_seed(0)
    v, t, h = (torch.randn(*s, 6, generator=g, dtype=torch.double) for s in ((4, 5), (4, 3), (4, 2, 3)))
    tm, hm = torch.tensor([[1, 1, 0]]*4), torch.tensor([[[1, 0, 0], [1, 1, 1]]]*4)
    a, b, c = (san_loss(v, t, h, None, tm, hm, scale=3., lam=x, mask_inner=True) for x in (0, .4, .8))
    assert float(b - a) == pytest.approx(float(c - b)) and float(b) > float(a)
    other = h.clone(); other[:, 0, 1:] = 99*torch.randn(4, 2, 6, dtype=torch.double)
    assert float(san_loss(v, t, other, None, tm, hm, scale=3., mask_inner=True)) == pytest.approx(float(b))
    with pytest.raises(InputError, match='hard: expected 3 tokens'): san_loss(v, t, torch.cat([h, h], 2))
    gone = san_loss(v, t, h, None, tm, hm, torch.zeros(4, 2, dtype=torch.bool), scale=3., mask_inner=True)
    assert float(gone) == pytest.approx(float(a))


# fine sets

def test_fine_sets_are_one_word_apart_distinct_and_local(tmp_path):
    names = vocabulary(CAPTIONS); tables = dict(a=random_table(names, 5, 0), b=random_table(names, 5, 1), c=dict(rain=('snow',)))
    fine = fine_set(CAPTIONS, tables, 10, 7)
    for c, row in zip(*fine):
        every = [x for xs in row.values() for x in xs]
        assert len(set(every)) == len(every) and list(row) == list(tables) and max(map(len, row.values())) <= 10
        assert all(sum(p != q for p, q in zip(c.split(), x.split())) == 1 and len(x.split()) == len(c.split()) for x in every)
        assert set(row['a']) <= set(one_word_apart(c, tables['a']))
    assert fine_set(CAPTIONS[5:6], tables, 10, 7).candidates == fine.candidates[5:6] and fine_set(CAPTIONS, tables, 10, 8) != fine
    flat, who = fine.flat(); assert [len(x) for x in flat] == [len(x) for x in who] and set(who[0]) <= set(tables)
    m = save_fine_set(tmp_path/'f.json', fine, tables, corpus='x', seed=7)
    assert load_fine_set(tmp_path/'f.json') == (fine, m) and m['generators']['c']['fewer'] == len(CAPTIONS) and m['generators']['a']['candidates'] == sum(len(r['a']) for r in fine.candidates)
    d = json.loads((tmp_path/'f.json').read_text()); d['candidates'][0]['a'][0] = 'x'; (tmp_path/'f.json').write_text(json.dumps(d))
    with pytest.raises(InputError, match='sha256'): load_fine_set(tmp_path/'f.json')
    (tmp_path/'f.json').write_text('{}')
    with pytest.raises(InputError, match='fields'): load_fine_set(tmp_path/'f.json')


def test_ranks_are_those_of_a_loop():
    rng = np.random.default_rng(0); own, hard, valid = rng.integers(0, 5, 40), rng.integers(0, 5, (40, 7)), rng.random((40, 7)) < .7
    want = [1 + sum(h >= o for h, k in zip(row, on) if k) for o, row, on in zip(own, hard, valid)]
    r = fine_ranks(own, hard, valid); assert r.tolist() == want
    m = rank_metrics(r); assert m['R5'] == pytest.approx(100*np.mean([x <= 5 for x in want])) and m['MRR'] == pytest.approx(100*np.mean([1/x for x in want]))
    for bad in (dict(own=own[1:]), dict(valid=valid[1:]), dict(hard=np.full((40, 7), np.nan)), dict(valid=valid & (np.arange(40) != 3)[:, None]), dict(own=own + np.inf)):
        with pytest.raises(InputError): fine_ranks(**{**dict(own=own, hard=hard, valid=valid), **bad})


@pytest.mark.parametrize('tokens', [False, True])
def test_one_call_for_coarse_and_fine(tmp_path, tokens):
    g = np.random.default_rng(0); shape = (5, 3, 4) if tokens else (5, 4)
    v = g.normal(size=shape); t = v + .3*g.normal(size=shape); hard = np.repeat(t[:, None], 3, 1) + .5*g.normal(size=(5, 3, *shape[1:])); hard[2, 1:] = np.nan
    for n, x in (('video', v), ('text', t), ('fine', hard)): np.save(tmp_path/f'{n}.npy', x.astype(np.float32))
    if tokens:
        for n, m in (('text', np.ones((5, 3))), ('fine', np.ones((5, 3, 3)))): m[..., 2:] = 0; np.save(tmp_path/f'{n}_mask.npy', m.astype(int))
    frame, found = evaluate_san(tmp_path, resamples=50); own, far = fine_scores(tmp_path)
    assert np.isnan(far).sum() == 2 and set(frame.index.get_level_values(0)) == {'coarse', 'fine'} and found.values['t2v']['R1'] == frame.loc[('coarse', 't2v', 'R1'), 'value']
    ranks = [1 + sum(h >= o for h in row if h == h) for o, row in zip(own, far)]
    assert frame.loc[('fine', 'v2t', 'MRR'), 'value'] == pytest.approx(100*np.mean([1/r for r in ranks]))
    if not tokens: assert own[0] == pytest.approx(v[0] @ t[0]/np.linalg.norm(v[0])/np.linalg.norm(t[0]), abs=1e-6)
    np.save(tmp_path/'fine.npy', np.zeros((4, 3, 4)))
    with pytest.raises(InputError, match='fine.npy: shape'): evaluate_san(tmp_path, resamples=0)


def put(folder, tokens, **arrays):
    g = np.random.default_rng(0); shape = (5, 6, 4) if tokens else (5, 4); v = g.normal(size=shape); t = v + .3*g.normal(size=shape); h = np.repeat(t[:, None], 3, 1) + .5*g.normal(size=(5, 3, *shape[1:]))
    for n, x in (dict(video=v, text=t, fine=h) | arrays).items(): np.save(folder/f'{n}.npy', np.asarray(x, np.float32))
    return v, t, h


fine_r1 = lambda path, **kw: evaluate_san(path, resamples=0, device='cpu', **kw)[0].loc[('fine', 'v2t', 'R1'), 'value']


@pytest.mark.parametrize('tokens', [False, True])
@pytest.mark.parametrize('mask_inner', [False, True])
def test_the_own_caption_again_ties_with_itself(tmp_path, tokens, mask_inner):
    _, t, h = put(tmp_path, tokens); far = fine_scores(tmp_path, mask_inner=mask_inner)[1]; h[:, 1] = t; put(tmp_path, tokens, fine=h)
    own, hard = fine_scores(tmp_path, mask_inner=mask_inner); assert (own == hard[:, 1]).all() and fine_r1(tmp_path, mask_inner=mask_inner) == 0 and np.allclose(hard[:, ::2], far[:, ::2], atol=1e-6)
    if tokens: assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(san._fine_of_folder(tmp_path, mask_inner=mask_inner, numbers=1), (own, hard)))


@pytest.mark.parametrize('tokens', [False, True])
def test_groups_say_whose_caption_is_whose_in_both_parts(tmp_path, tokens):
    v, t, h = put(tmp_path, tokens); whole = evaluate_san(tmp_path, resamples=0, device='cpu')[0]; order = np.array([3, 0, 4, 1, 2]); put(tmp_path, tokens, text=t[np.argsort(order)])
    again = evaluate_san(tmp_path, order, resamples=0, device='cpu')[0]; assert np.allclose(again['value'].astype(float), whole['value'].astype(float))
    put(tmp_path, tokens, text=t[:2], fine=h)
    with pytest.raises(InputError, match='groups'): fine_scores(tmp_path)
    own, _ = fine_scores(tmp_path, [0, 1, 0, 1, 0]); assert own.shape == (5,)
    s = np.eye(3)[[2, 0, 1]]; np.savez(tmp_path/'s.npz', similarity=s, fine=np.full((3, 2), .5)); assert fine_r1(tmp_path/'s.npz', groups=[2, 0, 1]) == 100 and fine_r1(tmp_path/'s.npz') == 0
    with pytest.raises(InputError, match='groups'): fine_scores(tmp_path/'s.npz', [0, 1, 7])


def test_a_video_without_hard_captions_is_not_asked(tmp_path):
    far = np.array([[.9, np.nan], [np.nan]*2, [.1, .2]]); np.savez(tmp_path/'s.npz', similarity=np.eye(3)*.5, fine=far)
    f = evaluate_san(tmp_path/'s.npz', resamples=50)[0].loc[('fine', 'v2t')]['value']; assert f['R1'] == 50 and f['videos'] == 2
    np.savez(tmp_path/'s.npz', similarity=np.eye(3), fine=far*np.nan); f = evaluate_san(tmp_path/'s.npz', resamples=50)[0].loc[('fine', 'v2t')]; assert f['value'].drop('videos').isna().all() and f.loc['videos', 'value'] == 0
    np.savez(tmp_path/'s.npz', similarity=np.eye(3), fine=np.where(far == .9, np.inf, far))
    with pytest.raises(InputError, match='s.npz: fine: expected finite scores, found 1'): evaluate_san(tmp_path/'s.npz', resamples=0)


def test_features_with_bad_numbers_are_errors_and_padding_may_be_anything(tmp_path):
    _, _, h = put(tmp_path, True); far = fine_scores(tmp_path)[1]
    for bad in (np.nan, np.inf):
        x = h.copy(); x[1, 2, 4, 0] = bad; put(tmp_path, True, fine=x)
        with pytest.raises(InputError, match=re.escape('fine.npy: caption [1, 2]')): fine_scores(tmp_path)
    x = np.full((5, 3, 9, 4), np.nan); x[:, :, :6] = h; put(tmp_path, True, fine=x, fine_mask=np.tile(np.arange(9) < 6, (5, 3, 1))); assert np.allclose(fine_scores(tmp_path)[1], far, atol=1e-6)
    for mask, message in ((np.ones((5, 3, 7)), 'shape'), (np.full((5, 3, 9), 2), 'content'), (np.zeros((5, 3, 9)), 'valid token')):
        put(tmp_path, True, fine=np.nan_to_num(x), fine_mask=mask)
        with pytest.raises(InputError, match=f'fine_mask.npy: .*{message}'): fine_scores(tmp_path)
    (tmp_path/'f.json').write_text('{"manifest": [], "captions": [], "candidates": []}')
    with pytest.raises(InputError, match='manifest'): load_fine_set(tmp_path/'f.json')
