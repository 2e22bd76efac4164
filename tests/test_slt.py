"""signbook.slt against exhaustive searches, sums over all CTC paths, PyTorch's own layers and slow versions."""
import itertools
import json
import math
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from signbook import slt as S
from signbook.core import InputError, save_json, set_seed
from signbook.metrics import bleu, rouge_l, wer
from signbook.slt import BOS, EOS, PAD, UNK, SLT, Block, DecoderState, Encoded, Encoder, SLTConfig, SLTData, Vocabulary, beam_search, build_vocabulary, ctc_beam
from signbook.training import FitConfig, fit, mask_of

TINY = SLTConfig(16, 4, ffn=32, dropout=0.)


@pytest.fixture(autouse=True)
def one_thread():
    n = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def clips(n=12, d=3, least=4, most=14, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(k, d)).astype(np.float32) for k in rng.integers(least, most, n)]


def data(n=12, seed=0, words=9, glosses=6):
    rng = np.random.default_rng([seed, 1])
    return SLTData(clips(n, seed=seed), [rng.integers(4, words, rng.integers(1, 6)).tolist() for _ in range(n)], [rng.integers(2, glosses, rng.integers(1, 3)).tolist() for _ in range(n)])


def model(config=TINY, words=9, glosses=6, d=3, seed=0, loud=1.):
    set_seed(seed); m = SLT(config, d, words, glosses)
    with torch.no_grad():
        for p in m.parameters(): p.mul_(loud)
    return m.eval()


# ---- vocabulary

@pytest.mark.parametrize('level', ['word', 'char'])
def test_known_texts_come_back(level):
    rng = np.random.default_rng(0); letters = list('abcdefgäß今天 ')
    texts = [''.join(rng.choice(letters, rng.integers(1, 30))) for _ in range(200)]
    if level == 'word': texts = [t for t in (' '.join(t.split()) for t in texts) if t]
    v = build_vocabulary(texts, level)
    assert [v.decode(v.encode(t)) for t in texts] == texts
    assert [v.decode([BOS, *v.encode(t), EOS, PAD, 5]) for t in texts] == texts
    assert all(min(v.encode(t)) > UNK for t in texts)


def test_real_texts_come_back(real):
    from signbook.corpora import load_corpus
    frame = load_corpus('phoenix14t', real / 'phoenix14t', split='dev').frame
    for texts, specials in ((frame['text'], S.TEXT_SPECIALS), (frame['gloss'], S.GLOSS_SPECIALS)):
        texts = [' '.join(t.split()) for t in texts]; v = build_vocabulary(texts, specials=specials)
        assert [v.decode(v.encode(t)) for t in texts] == texts


def test_vocabulary_order_and_limits():
    texts = ['b a c', 'a b', 'a d']
    v = build_vocabulary(texts)
    assert v.tokens == (*S.TEXT_SPECIALS, 'a', 'b', 'c', 'd') == build_vocabulary(texts[::-1]).tokens
    assert build_vocabulary(texts, min_count=2).tokens[4:] == ('a', 'b') and build_vocabulary(texts, most=1).tokens[4:] == ('a',)
    assert v.encode('a z <pad> <eos>') == [4, UNK, UNK, UNK] and v.decode([4, UNK, PAD, BOS, 5]) == 'a <unk> b'
    assert v.encode('') == [] and v.decode([]) == '' and v.decode(torch.tensor([4, EOS, 5])) == 'a'
    g = build_vocabulary(['A B'], specials=S.GLOSS_SPECIALS)
    assert g.decode([0, 2, 0, 3, 1]) == 'A B <unk>' and g.encode('B C') == [3, 1]


def test_vocabulary_files(tmp_path):
    v = build_vocabulary(['schön heute', '今天'], 'char'); f = tmp_path / 'v.json'
    S.save_vocabulary(f, v)
    assert S.load_vocabulary(f) == v
    good = json.loads(f.read_text())
    for change, message in (({'level': 'wrod'}, 'nearest: word'), ({'tokens': good['tokens'] + ['h']}, 'each token once'), ({'tokens': 'abc'}, 'a list of strings'), ({'specials': [1]}, 'a list of strings'),
                            ({'tokens': good['tokens'][1:]}, 'expected first <pad>'), ({'more': 1}, 'level, specials and tokens')):
        save_json(f, good | change)
        with pytest.raises(InputError, match=message): S.load_vocabulary(f)
    f.write_text(json.dumps(good)[:-20])
    with pytest.raises(InputError): S.load_vocabulary(f)
    with pytest.raises(InputError, match='no such file'): S.load_vocabulary(tmp_path / 'none.json')


@pytest.mark.parametrize('args, message', [(('rain',), 'a list of strings'), ((['rain', None],), r'texts\[1\]'), ((['a'], 'wrod'), 'nearest: word'), ((['a'], 'word', 0), 'min_count'), ((['a'], 'word', 2), 'occurs 2 times'), (([],), 'at least one token')])
def test_bad_vocabularies(args, message):
    with pytest.raises(InputError, match=message): build_vocabulary(*args)


# ---- batches

def test_batches():
    d = data(9); b = d(np.array([3, 1]))
    assert b['features'].dtype == torch.float32 and b['words'].dtype == b['glosses'].dtype == torch.int64
    for row, i in enumerate((3, 1)):
        n, w, g = d.lengths[i], d.words[i], d.glosses[i]
        np.testing.assert_array_equal(b['features'][row, :n], d.features[i])
        assert not b['features'][row, n:].any() and b['lengths'][row] == n
        assert b['words'][row].tolist()[:len(w) + 2] == [BOS, *w, EOS] and b['word_lengths'][row] == len(w) and not b['words'][row, len(w) + 2:].any()
        assert b['glosses'][row].tolist()[:len(g)] == g and b['gloss_lengths'][row] == len(g)
    order = [i for rows in d.batches(4) for i in rows]
    assert sorted(order) == list(range(9)) and (np.diff(d.lengths[order]) <= 0).all() and [len(r) for r in d.batches(4)] == [4, 4, 1]
    assert set(SLTData(clips(2))([0])) == {'features', 'lengths'}


@pytest.mark.parametrize('make, message', [
    (lambda: SLTData([]), 'lengths'), (lambda: SLTData([np.ones((0, 2))]), 'at least one frame'), (lambda: SLTData(clips(2), words=[[4]]), '2 lists'), (lambda: SLTData(clips(1), words=[[]]), 'at least one word'),
    (lambda: SLTData(clips(1), glosses=[[0]]), 'none 0'), (lambda: SLTData(clips(1), glosses=[[-1]]), 'none 0'), (lambda: SLTData(clips(2), lengths=[3]), 'lengths'),
    (lambda: SLTData([np.ones((2, 2)), np.full((2, 2), np.inf)])([0, 1]), r'features\[1\]: expected finite'), (lambda: SLTData([np.ones((2, 2)), np.ones((2, 3))])([0, 1]), 'shape')])
def test_bad_batches(make, message):
    with pytest.raises(InputError, match=message): make()


# ---- configuration

def test_table_4():
    for scale, layers, longest in (('paper', 3, 30), ('paper-csl', 1, 50)):
        c, f = S.slt_config(scale), S.slt_fit(scale)
        assert (c.encoder_layers, c.decoder_layers, c.heads, c.dim, c.activation, c.smoothing, c.longest, c.dropout) == (layers, layers, 8, 512, 'gelu', .1, longest, .3)
        assert (f.optimizer, f.lr, f.betas, f.batch_size) == ('adam', 1e-3, (.9, .98), 128)
    assert S.slt_config('cpu', dim=64).dim == 64 and set(S.SLT_SCALES) == set(S.SLT_FIT)


@pytest.mark.parametrize('make, message', [
    (lambda: S.slt_config('papre'), 'nearest: paper'), (lambda: S.slt_fit('papre'), 'nearest: paper'), (lambda: SLTConfig(activation='rely'), 'nearest: relu'), (lambda: SLTConfig(temporal='conv3'), 'nearest'), (lambda: SLTConfig(100, 3), 'multiple of the 3 heads'),
    (lambda: SLTConfig(frame_norm='batches'), 'nearest: batch'), (lambda: SLT(TINY, 3), 'at least one vocabulary'), (lambda: SLT(replace(TINY, embed=False), 3, words=9), '16 channels'), (lambda: model()({**data()([0]), 'features': torch.zeros(1, 4, 5)}), '3 channels'),
    (lambda: S.slt_loss(TINY)(model(glosses=4), data()(range(12))), 'glosses: expected ids below 4')])
def test_bad_models(make, message):
    with pytest.raises(InputError, match=message): make()


# ---- layers

def copied(ours, theirs):
    "PyTorch's layer in our names."
    out = {}
    for name, a in (('self', theirs.self_attn), *((('cross', theirs.multihead_attn),) if hasattr(theirs, 'multihead_attn') else ())):
        d = a.embed_dim
        out |= {f'parts.{name}.q.weight': a.in_proj_weight[:d], f'parts.{name}.q.bias': a.in_proj_bias[:d], f'parts.{name}.k_v.weight': a.in_proj_weight[d:], f'parts.{name}.k_v.bias': a.in_proj_bias[d:],
                f'parts.{name}.out.weight': a.out_proj.weight, f'parts.{name}.out.bias': a.out_proj.bias}
    names = ['self', 'cross', 'ffn'] if hasattr(theirs, 'multihead_attn') else ['self', 'ffn']
    for name, layer in (('parts.ffn.0', theirs.linear1), ('parts.ffn.3', theirs.linear2), *((f'norms.{n}', getattr(theirs, f'norm{i + 1}')) for i, n in enumerate(names))): out |= {f'{name}.weight': layer.weight, f'{name}.bias': layer.bias}
    ours.load_state_dict(out)


@pytest.mark.parametrize('prenorm', [True, False])
@pytest.mark.parametrize('activation', ['relu', 'gelu'])
def test_blocks_are_pytorchs_layers(prenorm, activation):
    set_seed(0); c = replace(TINY, prenorm=prenorm, activation=activation); kw = dict(dropout=0., activation=activation, batch_first=True, norm_first=prenorm)
    x, memory, keep, seen = torch.randn(3, 7, 16), torch.randn(3, 5, 16), mask_of(torch.tensor([7, 4, 1])), mask_of(torch.tensor([5, 2, 3]))
    theirs, ours = nn.TransformerEncoderLayer(16, 4, 32, **kw), Block(c); copied(ours, theirs)
    torch.testing.assert_close(ours(x, keep[:, None, None])[keep], theirs(x, src_key_padding_mask=~keep)[keep])
    theirs, ours = nn.TransformerDecoderLayer(16, 4, 32, **kw), Block(c, cross=True); copied(ours, theirs)
    ahead = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(ours(x, causal=True, memory=memory, memory_mask=seen[:, None, None]), theirs(x, memory, ahead, memory_key_padding_mask=~seen, tgt_is_causal=True))


def test_positions():
    p = S.positions(1000, 64).double()
    pos, i = 777, 13
    assert p[pos, 2 * i].item() == pytest.approx(math.sin(pos / 10000 ** (2 * i / 64)), abs=1e-6) and p[pos, 2 * i + 1].item() == pytest.approx(math.cos(pos / 10000 ** (2 * i / 64)), abs=1e-6)
    assert torch.equal(S.Positions(8)(torch.zeros(1, 700, 8))[0], S.positions(700, 8))


@pytest.mark.parametrize('temporal', ['none', 'conv2', 'conv4'])
@pytest.mark.parametrize('norm', ['batch', 'layer', 'none'])
def test_padding_changes_nothing(temporal, norm):
    c = replace(TINY, temporal=temporal, frame_norm=norm, word_norm=norm, squash='softsign'); d, m = data(), model(c)
    together = m(d(range(12)))
    for i in range(12):
        alone = m(d([i])); n, s = int(alone['seen'].lengths[0]), len(d.words[i]) + 1
        assert n == math.ceil(d.lengths[i] / 2 ** S.TEMPORAL[temporal]) == int(together['seen'].lengths[i])
        for a, b in ((alone['seen'].frames[0, :n], together['seen'].frames[i, :n]), (alone['gloss'][0, :n], together['gloss'][i, :n]), (alone['words'][0, :s], together['words'][i, :s])): torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize('norm', ['batch', 'layer'])
def test_padding_changes_no_gradient(norm):
    c, d = replace(TINY, temporal='conv2', frame_norm=norm, word_norm=norm), data(); grads = []
    for fill in (0., 7.):
        m = model(c).train(); b = d(range(12)); b['features'] = F.pad(b['features'], (0, 0, 0, 5)); b['features'][~mask_of(b['lengths'], b['features'].shape[1])] = fill
        S.slt_loss(c)(m, b)[0].backward(); grads.append({n: p.grad for n, p in m.named_parameters()})
    for n in grads[0]: torch.testing.assert_close(grads[0][n], grads[1][n], atol=1e-6, rtol=1e-4)


def test_no_word_sees_the_next():
    d, m = data(), model(loud=2.); b = d(range(12)); before = m(b)['words']
    for k in range(2, b['words'].shape[1] - 1):
        changed = b['words'].clone(); changed[:, k:] = torch.randint(4, 9, changed[:, k:].shape)
        after = m(b | {'words': changed})['words']
        torch.testing.assert_close(before[:, :k], after[:, :k]); assert (before[:, k:] - after[:, k:]).abs().max() > 1e-3


def test_tied_weights_and_no_embedding():
    m = model(replace(TINY, tied=True)); assert m.decoder.out.weight is m.decoder.word.weight
    e = Encoder(replace(TINY, embed=False), 16).eval(); assert isinstance(e.linear, nn.Identity) and e(torch.randn(2, 5, 16), torch.tensor([5, 3])).frames.shape == (2, 5, 16)


# ---- loss

@pytest.mark.parametrize('smoothing', [0., .1, .4])
def test_label_smoothing(smoothing):
    set_seed(0); logits, y = torch.randn(3, 5, 11), torch.randint(1, 11, (3, 5)); y[1, 2:] = PAD
    total, n = S.translation_sums(logits, y, smoothing); lp = logits.double().log_softmax(-1); slow = 0
    for b, s in itertools.product(range(3), range(5)):
        if y[b, s] != PAD: slow -= sum(((1 - smoothing) * (v == y[b, s]) + smoothing / 11) * lp[b, s, v] for v in range(11))
    assert total.item() == pytest.approx(slow.item(), rel=1e-5) and n == (y != PAD).sum()


def collapse(path): return tuple(g for g, _ in itertools.groupby(path) if g)


def masses(lp):
    "{glosses: probability} over all paths of (T, G)."
    out, p = Counter(), lp.double().exp().numpy()
    for path in itertools.product(range(p.shape[1]), repeat=len(p)): out[collapse(path)] += float(np.prod(p[range(len(p)), path]))
    return out


def test_ctc_is_the_sum_over_paths():
    set_seed(0); lengths, targets = [5, 4, 3, 2, 1], [[1, 2, 1], [2, 2], [1], [2, 2], [1, 2]]
    lp = (2 * torch.randn(5, 5, 3)).log_softmax(-1); ids = S.ids_of(targets, 'glosses')
    total, n, none = S.recognition_sums(lp, torch.tensor(lengths), ids['glosses'], ids['gloss_lengths'])
    slow = [masses(lp[b, :lengths[b]])[tuple(t)] for b, t in enumerate(targets)]
    assert total.item() == pytest.approx(-sum(math.log(p) for p in slow if p), rel=1e-5) and n == 6 and none == sum(not p for p in slow) == 2


def test_room_is_where_a_path_exists():
    cases = [(T, t) for T in range(1, 6) for n in range(1, 4) for t in itertools.product((1, 2), repeat=n)]
    ids = S.ids_of([t for _, t in cases], 'glosses'); have = S.ctc_room(torch.tensor([T for T, _ in cases]), ids['glosses'], ids['gloss_lengths'])
    possible = {T: {collapse(p) for p in itertools.product(range(3), repeat=T)} for T in range(1, 6)}
    assert have.tolist() == [t in possible[T] for T, t in cases]


@pytest.mark.parametrize('per', ['token', 'sentence'])
def test_shares_of_a_batch_sum_to_the_whole(per, monkeypatch):
    c, d = replace(TINY, per=per, translation=2., recognition=.5, frame_weight=.3), data(); m = model(c)
    near = lambda frames, lengths, words: ((frames[:, 1:] - frames[:, :-1]).norm(dim=-1) * mask_of(lengths - 1, frames.shape[1] - 1)).sum(1).div(lengths * words).mean()
    loss = S.slt_loss(c, near); whole, logs = loss(m, d(range(12)))
    assert whole.item() == pytest.approx(2 * logs['translation'].item() + .5 * logs['recognition'].item() + .3 * logs['frames'].item(), rel=1e-5)
    grad = torch.autograd.grad(whole, m.encoder.linear.weight)[0]; sums = []
    monkeypatch.setattr(S, 'global_mean', lambda s, n: sums.append((s, float(n))) or s / n)
    for share in (range(5), range(5, 12)): loss(m, d(share))
    parts = [sum(s for s, _ in sums[k::3]) / sum(n for _, n in sums[k::3]) for k in range(3)]
    total = 2 * parts[0] + .5 * parts[1] + .3 * parts[2]
    assert total.item() == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(total, m.encoder.linear.weight)[0], grad, atol=1e-6, rtol=1e-4)


def test_frame_loss_sees_real_lengths():
    seen = {}
    def frame_loss(frames, lengths, words): seen.update(shape=frames.shape, lengths=lengths.tolist(), words=words); return frames.new_zeros(())
    for frames, temporal, glosses in (('encoder', 'conv2', 6), ('input', 'none', None)):
        c, d = replace(TINY, frames=frames, temporal=temporal), data(); loss, logs = S.slt_loss(c, frame_loss)(model(c, glosses=glosses), d(range(12)))
        assert seen['lengths'] == [math.ceil(n / (1 + (temporal == 'conv2'))) for n in d.lengths] and seen['words'].tolist() == [len(w) for w in d.words] and seen['shape'][2] == 16
        assert ('recognition' in logs) == bool(glosses) and logs['frames'] == 0
    SLTData(clips(2), glosses=[[2], [2]]); S.slt_loss(TINY, frame_loss)(model(words=None), SLTData(clips(2), glosses=[[2], [2]])([0, 1])); assert seen['words'] is None


# ---- recognition

def test_ctc_beam_is_exact_with_room():
    set_seed(0)
    for T, G, sharp in ((5, 3, 1.), (4, 4, 2.), (6, 2, 1.), (1, 5, 1.)):
        lp = (sharp * torch.randn(30, T, G)).log_softmax(-1); found, score = ctc_beam(lp, torch.full((30,), T), beam=200)
        for b in range(30):
            best = masses(lp[b]); top = max(best, key=best.get)
            assert tuple(found[b]) == top and score[b].exp().item() == pytest.approx(best[top], rel=1e-4)


def slow_prefix_search(lp, beam):
    "Prefixes in a dict, one frame at a time."
    live = {(): (1., 0.)}; p = lp.double().exp().numpy()
    for row in p:
        new = {}
        def add(prefix, blank, other): a, b = new.get(prefix, (0., 0.)); new[prefix] = (a + blank, b + other)
        for prefix, (a, b) in live.items():
            add(prefix, (a + b) * row[0], b * row[prefix[-1]] if prefix else 0.)
            for g in range(1, len(row)): add(prefix + (g,), 0., (a if prefix and prefix[-1] == g else a + b) * row[g])
        live = dict(sorted(new.items(), key=lambda kv: -sum(kv[1]))[:beam])
    best = max(live, key=lambda k: sum(live[k]))
    return best, sum(live[best])


@pytest.mark.parametrize('beam', [1, 2, 5, 10])
def test_ctc_beam_is_the_prefix_search(beam):
    set_seed(beam); lengths = torch.randint(1, 25, (25,)); lp = (2.5 * torch.randn(25, 24, 7)).log_softmax(-1)
    found, score = ctc_beam(lp, lengths, beam)
    for b, n in enumerate(lengths.tolist()):
        slow, p = slow_prefix_search(lp[b, :n], beam)
        assert tuple(found[b]) == slow and score[b].exp().item() == pytest.approx(p, rel=1e-3)


# ---- beam search

class Table:
    "Next-word probabilities that hang on all words so far."
    def __init__(self, seeds, v=7, sharp=1.5): self.seeds, self.v, self.sharp, self.size, self.device, self.past = list(seeds), v, sharp, len(seeds), 'cpu', None
    def after(self, seed, past):
        x = np.random.default_rng([seed, *past]).normal(size=self.v) * self.sharp; x[[PAD, BOS, UNK]] = -np.inf
        return torch.tensor(x, dtype=torch.float32).log_softmax(-1)
    def step(self, words):
        self.past = [[(*(self.past[b][k] if self.past else ()), w) for k, w in enumerate(row)] for b, row in enumerate(words.tolist())]
        return torch.stack([torch.stack([self.after(s, p) for p in rows]) for s, rows in zip(self.seeds, self.past)])
    def follow(self, origin): self.past = [[rows[o] for o in row] for rows, row in zip(self.past, origin.tolist())]
    def take(self, rows): self.past, self.seeds = [self.past[i] for i in rows.tolist()], [self.seeds[i] for i in rows.tolist()]


ALPHAS = (-1., 0., .6, 1., 4.)


def test_beam_search_is_exhaustive_with_room():
    n, longest, table = 8, 3, Table(range(8)); ids, logp = beam_search(Table(range(n)), 60, ALPHAS, longest)
    every = [w for k in range(longest + 1) for w in itertools.product(range(4, 7), repeat=k)]
    for b in range(n):
        total = {w: sum(table.after(b, (BOS, *w[:i]))[x].item() for i, x in enumerate((*w, EOS))) for w in every}
        for a, alpha in enumerate(ALPHAS):
            best = max(every, key=lambda w: total[w] / ((6 + len(w)) / 6) ** alpha); said = ids[b, a].tolist()
            assert tuple(said[:said.index(EOS)]) == best and logp[b, a].item() == pytest.approx(total[best], abs=1e-5) and not any(said[said.index(EOS) + 1:])


def slow_beam(table, seed, beam, alpha, longest):
    "One sentence, lists and sorting."
    live, done = [(0., ())], []
    for t in range(longest + 1):
        grown = sorted(((s + v, w, x) for s, w in live for x, v in enumerate(table.after(seed, (BOS, *w)).tolist()) if v > -math.inf), key=lambda c: -c[0])
        if t == longest: done += [(s, w) for s, w, x in grown if x == EOS]; break
        done += [(s, w) for s, w, x in grown[:beam] if x == EOS]
        live = [(s, (*w, x)) for s, w, x in grown if x != EOS][:beam]
        if len(done) >= beam: break
    return max(done, key=lambda d: d[0] / ((6 + len(d[1])) / 6) ** alpha)


@pytest.mark.parametrize('beam', [1, 2, 3, 5])
def test_beam_search_is_the_slow_one(beam):
    ids, logp = beam_search(Table(range(25)), beam, ALPHAS, 6)
    for b, (a, alpha) in itertools.product(range(25), enumerate(ALPHAS)):
        score, words = slow_beam(Table([0]), b, beam, alpha, 6); said = ids[b, a].tolist()
        assert tuple(said[:said.index(EOS)]) == words and logp[b, a].item() == pytest.approx(score, abs=1e-5)


def test_early_stop_changes_nothing(monkeypatch):
    early = {a: beam_search(Table(range(25)), 3, (a,), 9) for a in ALPHAS}
    monkeypatch.setattr(S._Best, 'safe', lambda self, rows, logp, t: torch.zeros(len(rows), dtype=torch.bool))
    ids, logp = beam_search(Table(range(25)), 3, ALPHAS, 9)
    for k, a in enumerate(ALPHAS): assert torch.equal(early[a][0][:, 0], ids[:, k]) and torch.equal(early[a][1][:, 0], logp[:, k])


@pytest.mark.parametrize('kw, message', [(dict(beam=0), 'beam'), (dict(beam=True), 'beam'), (dict(beam=2.), 'beam'), (dict(longest=0), 'longest'), (dict(alpha=()), 'alpha'), (dict(alpha=(math.nan,)), 'alpha')])
def test_bad_searches(kw, message):
    with pytest.raises(InputError, match=message): beam_search(Table([0]), **kw)


class Plain:
    "A decoding state that runs the whole decoder at every step."
    def __init__(self, decoder, seen, beam): self.decoder, self.seen, self.beam, self.said, self.device = decoder, Encoded(*(x.repeat_interleave(beam, 0) for x in seen)), beam, None, 'cpu'
    size = property(lambda self: len(self.seen.frames) // self.beam)
    def step(self, words):
        self.said = words[..., None] if self.said is None else torch.cat([self.said, words[..., None]], -1)
        lp = self.decoder(self.said.flatten(0, 1), self.seen)[:, -1].log_softmax(-1); lp[:, [PAD, BOS]] = -math.inf
        return lp.view(*words.shape, -1)
    def follow(self, origin): self.said = self.said.gather(1, origin[..., None].expand_as(self.said))
    def take(self, rows): self.said, self.seen = self.said[rows], Encoded(*(x.unflatten(0, (-1, self.beam))[rows].flatten(0, 1) for x in self.seen))


@pytest.mark.parametrize('beam', [1, 2, 5])
@pytest.mark.parametrize('c', [TINY, replace(TINY, prenorm=False, word_norm='batch', frame_norm='batch', squash='softsign', tied=True, temporal='conv2')], ids=['pre-norm', 'post-norm'])
def test_memory_changes_nothing(beam, c):
    m = model(c, loud=2.)
    with torch.no_grad():
        seen = m.encode(SLTData(clips(30, seed=4))(range(30)))
        (a, p), (b, q) = (beam_search(s, beam, (0., 2.), 11) for s in (DecoderState(m.decoder, seen, beam, 11), Plain(m.decoder, seen, beam)))
    assert (a == b).all(-1).float().mean() == 1 and len({tuple(x) for x in a[:, 1].tolist()}) > 3
    torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-4)


WORDS = Vocabulary((*S.TEXT_SPECIALS, *'abcde'))
SIGNS = Vocabulary((*S.GLOSS_SPECIALS, *'ABCD'), specials=S.GLOSS_SPECIALS)


def greedy(m, d, i):
    said, seen = [BOS], m.encode(d([i]))
    while said[-1] != EOS and len(said) <= m.config.longest:
        logits = m.decoder(torch.tensor([said]), seen)[0, -1]; logits[[PAD, BOS]] = -math.inf; said.append(int(logits.argmax()))
    return WORDS.decode(said[1:])


@torch.no_grad()
def test_one_beam_is_greedy_and_batches_do_not_matter():
    m, d = model(replace(TINY, longest=7), loud=2.), data(25); slow = [greedy(m, d, i) for i in range(25)]
    assert S.translate(m, d, WORDS, 1, 0.) == S.translate(m, d, WORDS, 1, 3.) == S.translate(m, d, WORDS, 1, 0., size=3) == slow and len(set(slow)) > 3
    assert S.translate(m, d, WORDS, 4, 1., size=4) == S.translate(m, d, WORDS, 4, 1.) == S.translate(m, d, WORDS, 4, (0., 1.))[1]
    assert max(len(t.split()) for t in S.translate(m, d, WORDS, 4, 5.)) <= 7
    assert S.recognise(m, d, SIGNS, 1, size=4) == S.recognise(m, d, SIGNS, 1) and len(S.recognise(m, d, SIGNS, 5)) == 25


def test_wrong_kind_of_model():
    d = data()
    with pytest.raises(InputError, match='a recogniser'): S.translate(model(words=None), d, WORDS)
    with pytest.raises(InputError, match='one without'): S.recognise(model(glosses=None), d, SIGNS)
    with pytest.raises(InputError, match='a recogniser'): S.cross_attention(model(words=None), d([0]))
    w = S.cross_attention(model(), d(range(3))); assert w.shape == (3, d(range(3))['words'].shape[1] - 1, d(range(3))['features'].shape[1])
    torch.testing.assert_close(w.sum(-1), torch.ones(w.shape[:2])); assert not w[1, :, d.lengths[1]:].any()


# ---- scores

@torch.no_grad()
def test_choice_and_scores():
    m, d = model(loud=2.), data(25)
    refs, glosses = [WORDS.decode(w) + ' z' for w in d.words], [SIGNS.decode(g) + ' Z' for g in d.glosses]
    choice = S.choose_length_penalty(m, d, refs, WORDS, beams=(1, 3), alphas=(-1., 0., 2.))
    for b, a, score in choice['table']: assert score == bleu(S.translate(m, d, WORDS, b, a), refs)['bleu4']
    assert choice['score'] == max(s for *_, s in choice['table']) and len(choice['table']) == 6
    flat = S.choose_length_penalty(m, d, refs, WORDS, beams=(3, 1), alphas=(2., -1., 0.), score=lambda h, r: 1.)
    assert (flat['beam'], flat['alpha']) == (1, 0.)
    got = S.evaluate_slt(m, d, refs, WORDS, glosses, SIGNS, beam=2, alpha=1., ctc=3, outputs=True); texts, seen = S.translate(m, d, WORDS, 2, 1.), S.recognise(m, d, SIGNS, 3)
    assert got['texts'] == texts and got['glosses'] == seen and got['bleu4'] == bleu(texts, refs)['bleu4'] and got['rouge'] == rouge_l(texts, refs) and {k: got[k] for k in ('wer', 'sub', 'ins', 'del')} == wer(seen, glosses)
    assert set(S.evaluate_slt(m, d, refs, WORDS)) == {'bleu1', 'bleu2', 'bleu3', 'bleu4', 'rouge'} and got['wer'] > 0
    assert S.slt_dev(d, refs, WORDS)(m) == S.evaluate_slt(m, d, refs, WORDS, beam=1, alpha=0.)
    for bad, message in (((), 'at least one task'), ((refs,), 'together')):
        with pytest.raises(InputError, match=message): S.evaluate_slt(m, d, *bad)
    with pytest.raises(InputError, match='25 texts'): S.choose_length_penalty(m, d, refs[:3], WORDS)


def test_it_learns_and_the_parts_agree():
    rng = np.random.default_rng(0); signs = rng.normal(size=(4, 6)); glosses = [rng.choice(4, 3, replace=False) for _ in range(24)]
    x = [np.repeat(signs[g], 5, 0) + .1 * rng.normal(size=(15, 6)) for g in glosses]
    texts, said = [' '.join('abcd'[k] for k in g[::-1]) for g in glosses], [' '.join('ABCD'[k] for k in g) for g in glosses]
    d = SLTData([v.astype(np.float32) for v in x], [WORDS.encode(t) for t in texts], [SIGNS.encode(g) for g in said])
    c = SLTConfig(32, 4, 1, 1, 64, dropout=0., temporal='conv2'); set_seed(0); m = SLT(c, 6, len(WORDS), len(SIGNS))
    run = fit(m, S.slt_loss(c), d, 24, FitConfig(epochs=60, lr=5e-3, batch_size=8, clip=1.), lengths=d.lengths)
    got = S.evaluate_slt(m, d, texts, WORDS, said, SIGNS, beam=3, alpha=1., ctc=4)
    assert got['wer'] == 0 and got['bleu1'] > 99 and run.history[-1]['recognition'] < .1 and run.history[-1]['without path'] == 0


def test_speed():
    m = model(SLTConfig(128, 4, 2, 2, 256), words=440, glosses=122, d=54); d = SLTData(clips(100, 54, 40, 80)); v = Vocabulary((*S.TEXT_SPECIALS, *map(str, range(436))))
    m.config = replace(m.config, longest=12)
    took = []
    for _ in range(2): start = time.process_time(); S.translate(m, d, v, 4, 1.); took.append(time.process_time() - start)
    assert min(took) < 20
    lp = torch.randn(100, 40, 122).log_softmax(-1); start = time.process_time(); ctc_beam(lp, torch.full((100,), 40), 5); assert time.process_time() - start < 20


# ---- alignment

@torch.no_grad()
@pytest.mark.parametrize('temporal', ['none', 'conv2', 'conv4'])
def test_alignments(temporal):
    from signbook.density import ctc_forced_alignment
    m, d = model(replace(TINY, temporal=temporal), loud=2.), data(30); stride, found = 2 ** S.TEMPORAL[temporal], S.align(m, d, grow=False, size=7)
    for i, (a, g) in enumerate(zip(found, d.glosses)):
        lp, need = S.posterior(m, d, i), len(g) + sum(x == y for x, y in zip(g, g[1:]))
        if a is None: assert len(lp) < need; continue
        one = ctc_forced_alignment(lp, g); first, n = a.segments[:, 1], a.segments[:, 2]
        assert a.segments[:, 0].tolist() == g and (first == np.maximum(stride * one.segments[:, 1] - stride // 2, 0)).all() and (n > 0).all() and a.score == pytest.approx(one.score, rel=1e-4)
        assert (a.frame == stride * one.frame).all() and (a.frame >= first).all() and (a.frame < first + n).all() and first[-1] + n[-1] <= d.lengths[i] and (np.diff(first) > 0).all()
    for a, i in ((a, i) for i, a in enumerate(S.align(m, d)) if a is not None):
        assert a.segments[0, 1] == 0 and a.segments[:, 2].sum() == d.lengths[i] and (a.segments[1:, 1] == a.segments[:-1, 1:].sum(1)).all()
    with pytest.raises(InputError, match='glosses of each video'): S.align(m, SLTData(clips(2)))
    with pytest.raises(InputError, match='one without'): S.align(model(glosses=None), d)


@pytest.mark.parametrize('per', S.PER)
def test_a_batch_without_a_path_trains_nothing_and_stops_nothing(per):
    d = SLTData(clips(3, least=2, most=3), glosses=[[2, 2, 3], [2], [3]]); c = replace(TINY, per=per); m = model(c, words=None)
    loss, logs = S.slt_loss(c)(m, d([0])); assert loss == 0 and logs['without path'] == 1
    assert not any(g.any() for g in torch.autograd.grad(loss, [p for p in m.parameters()], allow_unused=True) if g is not None)
    assert all(math.isfinite(h['recognition']) for h in fit(m, S.slt_loss(c), d, 3, FitConfig(epochs=2, batch_size=1), progress=False).history)


def test_recognition_by_sentence_is_pytorchs_mean():
    set_seed(0); lp = torch.randn(5, 30, 9).log_softmax(-1); lengths = torch.tensor([30, 25, 12, 9, 2]); ids = S.ids_of([[1, 2, 3], [4]*6, [5, 6], [7], [8, 8]], 'glosses'); g, n = ids['glosses'], ids['gloss_lengths']
    assert S.recognition_loss(lp, lengths, g, n, 'sentence')[0].item() == pytest.approx(nn.CTCLoss(zero_infinity=True)(lp.transpose(0, 1), g, lengths, n).item(), rel=1e-6)
    total, count, none = S.recognition_sums(lp, lengths, g, n); assert S.recognition_loss(lp, lengths, g, n)[0].item() == (total / count).item() and none == 1
    with pytest.raises(InputError, match='nearest: sentence'): S.recognition_loss(lp, lengths, g, n, 'sentences')
