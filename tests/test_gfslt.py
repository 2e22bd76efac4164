"GFSLT: lengths, contrast, padding, tokenisers, weights, losses, decoding."
import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import MBartConfig, MBartModel

from signbook.core import InputError, set_seed
from signbook.gfslt import (GFSLT, VLP, FrameEncoder, GFSLTConfig, GFSLTData, Pieces, TextState, VisualTower, build_pieces, contrast_loss, evaluate_gfslt, export_weights, frame_batch,
                            frame_features, frame_lengths, gfslt_config, gfslt_fit, load_mbart, load_resnet, load_stage1, make_resnet18, masked_ids, masked_words, mbart_pieces, padded_length,
                            places, pretrain_loss, round_trip, score_texts, similarities, step_profile, translate, translate_loss)
from signbook.slt import BOS, EOS, PAD, UNK, build_vocabulary
from signbook.training import FitConfig, count_parameters, fit

TEXTS = ['rain in the north', 'sun in the south today', 'rain and sun', 'the north is dry', 'today rain', 'sun and rain in the south']
VOCABULARY = build_vocabulary(TEXTS)


def clips(n=6, size=32, seed=0):
    r = np.random.RandomState(seed)
    return [r.randint(0, 256, (9 + 3*i, size, size, 3), dtype=np.uint8) for i in range(n)]


def data(**k): return GFSLTData(clips(), TEXTS, VOCABULARY, **k)


def test_lengths_golden(golden):
    rows = json.loads((golden/'slt.json').read_text())['gfslt_lengths']
    for r in rows: assert frame_lengths(r['frames']) == (r['padded'], r['mask_len_formula']) and r['conv_true_len'] == r['mask_len_formula']
    n = torch.tensor([r['frames'] for r in rows]); assert frame_lengths(n).encoded.tolist() == [r['conv_true_len'] for r in rows]


def test_contrast_golden(golden):
    for case in json.loads((golden/'slt.json').read_text())['gfslt_klloss']:
        image, text = (torch.tensor(case[k], dtype=torch.float64) for k in ('image', 'text'))
        S = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T/.07
        assert float(contrast_loss(S)) == pytest.approx(case['mean'], rel=1e-10) and float(contrast_loss(S, 'infonce')) == pytest.approx(case['infoNCE_ce'], rel=1e-10)
        assert float(contrast_loss(similarities(image, text, torch.tensor(math.log(1/.07))))) == pytest.approx(case['mean'], rel=1e-5)


def test_full_architecture_has_the_published_size():
    c = gfslt_config('paper')
    assert c == gfslt_config('gpu') == GFSLTConfig()
    with torch.device('meta'): assert count_parameters(GFSLT(c, 2454)) == 115_412_544
    assert count_parameters(make_resnet18()) == 11_176_512


def test_recipes():
    a, b = gfslt_fit('paper', 'pretrain'), gfslt_fit('paper')
    assert (a.optimizer, a.lr, a.momentum, a.epochs, a.batch_size, a.weight_decay) == ('sgd', .01, .9, 80, 16, 0)
    assert (b.epochs, b.weight_decay, b.min_lr, b.batch_size) == (200, .001, 1e-8, 8)


@pytest.mark.parametrize('repeat', [False, True])
def test_places_against_a_loop(repeat):
    n = [3, 8, 5]; p = places(torch.tensor(n), repeat); start = 0
    for row, mask, k in zip(p.index, p.mask, n):
        own = list(range(start, start + k)); own = [own[0]]*8 + own + [own[-1]]*(padded_length(k) - 8 - k) if repeat else own
        assert row[:len(own)].tolist() == own and mask.sum() == len(own); start += k


@pytest.mark.parametrize('changes', [{}, {'blocks': 2}, {'pad': 'repeat', 'blocks': 2}])
def test_padding_never_matters_in_eval_mode(changes):
    set_seed(0); tower = VisualTower(gfslt_config('smoke', **changes)); d = data(); tower(d([0, 3])); tower.eval()
    whole = tower(d([0, 4, 2]))
    for k, i in enumerate((0, 4, 2)):
        alone = tower(d([i])); n, m = int(alone.encoded.lengths[0]), int(alone.lengths[0])
        torch.testing.assert_close(whole.encoded.frames[k, :n], alone.encoded.frames[0, :n], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(whole.frames[k, :m], alone.frames[0, :m], rtol=1e-4, atol=1e-5)
        assert n == frame_lengths(9 + 3*i, tower.config).encoded


def test_batchnorm_counts_valid_frames_unless_released():
    for released in (False, True):
        set_seed(0); tower = VisualTower(gfslt_config('smoke', pad='repeat', blocks=1, released=released)).train(); d = data()
        seen = tower(d([0, 5])); raw = seen.frames if released else None; norm = tower.conv[0].norm.norm
        x, at = tower.eval().encode_frames(d([0, 5])); tower.train()
        y = tower.conv[0].conv(x.transpose(1, 2)).transpose(1, 2); n = at.lengths - 4
        rows = y.flatten(0, 1) if released else torch.cat([y[0, :n[0]], y[1, :n[1]]])
        norm.reset_running_stats(); tower.conv[0](x, at.lengths); torch.testing.assert_close(norm.running_mean, .1*rows.mean(0), rtol=1e-4, atol=1e-5)
        if released: assert raw.shape[1] == padded_length(24) and (raw[0, padded_length(9):] == 1).all()


def test_frame_loss_sees_own_frames():
    got = []
    spy = lambda x, n, w: got.append((x.shape, n.tolist(), w.tolist())) or x.sum()*0
    for changes, shape, n in (({}, (2, 15, 64), [9, 15]), ({'pad': 'repeat'}, (2, 15, 64), [9, 15]), ({'pad': 'repeat', 'released': True}, (2, 32, 64), [28, 32]), ({'frame_at': 'conv'}, (2, 7, 64), [4, 7])):
        model = GFSLT(gfslt_config('smoke', **changes), len(VOCABULARY)); translate_loss(model, data()([0, 2]), spy); assert got.pop() == (shape, n, [4, 3])
    model = GFSLT(gfslt_config('smoke', words_as='tokens'), len(VOCABULARY)); translate_loss(model, data()([0, 2]), spy); assert got.pop()[2] == [6, 5]


@pytest.mark.parametrize('kind', ['pose', 'feature'])
def test_number_frames(kind):
    r = np.random.RandomState(0); x = [r.randn(n, 7, 3).astype(np.float32) for n in (8, 12)]
    model = GFSLT(gfslt_config('smoke', frames=kind, inputs=21, widths=(16,)), len(VOCABULARY)); d = GFSLTData(x, TEXTS[:2], VOCABULARY)
    assert torch.isfinite(translate_loss(model, d([0, 1]))[0]) and [f.shape for f in frame_features(model, d)] == [(8, 64), (12, 64)]
    x[1][3] = np.nan
    with pytest.raises(InputError, match='finite'): d([0, 1])


def test_smoothed_loss_in_float64():
    set_seed(0); model = GFSLT(gfslt_config('smoke'), len(VOCABULARY)).eval(); b = data()([0, 1, 4])
    lp = model(b).double().log_softmax(-1); y = b['words'][:, 1:]; total = n = 0
    for i in range(3):
        for t in range(y.shape[1]):
            if y[i, t] != PAD: total -= .8*lp[i, t, y[i, t]] + .2*lp[i, t].mean(); n += 1
    assert translate_loss(model, b)[0].item() == pytest.approx(float((total/n).detach()), rel=1e-5)


def test_pretraining_switches():
    set_seed(0); b = data()([0, 1, 2, 3]); c = gfslt_config('smoke', decoder_every=3); model = VLP(c, len(VOCABULARY)).train()
    assert ['masked' in pretrain_loss(model, b)[1] for _ in range(6)] == [True, False, False, True, False, False]
    frame = lambda x, n, w: x.square().mean()
    def grad(weight, from_step=0):
        m = VLP(c, len(VOCABULARY)).eval(); m.load_state_dict(model.state_dict()); m.step.zero_(); logs = (out := pretrain_loss(m, b, frame, weight, from_step))[1]; out[0].backward(); return m.visual.frame.body[0].weight.grad, logs
    base = pretrain_loss(model.eval(), b)[0]
    assert torch.equal(grad(0.)[0], grad(1., 5)[0]) and not torch.equal(grad(0.)[0], grad(1.)[0]) and 'frames' in grad(0.)[1]
    model.zero_grad(); m = VLP(replace(c, text_grad=False), len(VOCABULARY)); m.restore(b).sum().backward(); assert m.text.layers[0].fc1.weight.grad is None
    m = VLP(replace(c, text_grad=True), len(VOCABULARY)); m.restore(b).sum().backward(); assert m.text.layers[0].fc1.weight.grad is not None and torch.isfinite(base)
    image, text = model(b); S = similarities(image, text, model.logit_scale)
    assert float(pretrain_loss(model, b, groups=2)[1]['contrast']) == pytest.approx(float((contrast_loss(S[:2, :2]) + contrast_loss(S[2:, 2:]))/2), rel=1e-5)


def test_text_padding_never_matters():
    model = VLP(gfslt_config('smoke'), len(VOCABULARY)).eval(); d = data()
    torch.testing.assert_close(model(d([2, 5]))[1][:1], model(d([2]))[1], rtol=1e-4, atol=1e-5)


def test_stage1_travels():
    set_seed(0); a = VLP(gfslt_config('smoke'), len(VOCABULARY)); tensors = {k: v.numpy() for k, v in export_weights(a).items()}
    b = GFSLT(a.config, len(VOCABULARY)); head = b.decoder.head.weight.clone(); load_stage1(b, tensors, head=False)
    assert torch.equal(b.decoder.head.weight, head) and torch.equal(b.decoder.body.embed_tokens.weight, a.decoder.body.embed_tokens.weight)
    fresh = GFSLT(a.config, len(VOCABULARY)); assert not any(k.startswith('decoder') for k in load_stage1(fresh, tensors, decoder=False))
    x = data()([0, 1]); torch.testing.assert_close(a.eval().visual.encode_frames(x)[0], b.eval().visual.encode_frames(x)[0])
    without = VLP(replace(a.config, embed_first=False), len(VOCABULARY)); new = GFSLT(a.config, len(VOCABULARY)); before = new.visual.embed.weight.clone()
    load_stage1(new, export_weights(without)); assert torch.equal(new.visual.embed.weight, before)
    with pytest.raises(InputError, match='visual.frame.body.0.weight: expected a tensor'): load_stage1(b, {})


def test_local_resnet(tmp_path):
    make_resnet18().save_pretrained(tmp_path/'r'); model = GFSLT(gfslt_config('smoke', frames='resnet18', features=512), len(VOCABULARY)); load_resnet(model, tmp_path/'r')
    assert torch.equal(model.visual.frame.body.embedder.embedder.convolution.weight.data, make_resnet18(tmp_path/'r').embedder.embedder.convolution.weight.data)
    with pytest.raises(InputError, match='model.safetensors or pytorch_model.bin: expected .*ResNet-18'): (tmp_path/'r'/'model.safetensors').unlink(); load_resnet(model, tmp_path/'r')
    with pytest.raises(InputError, match='no such folder'): make_resnet18(tmp_path/'x')
    with pytest.raises(InputError, match='expected a model with resnet18'): load_resnet(GFSLT(gfslt_config('smoke'), 9), tmp_path/'r')


def test_local_mbart(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    t = Tokenizer(models.BPE(unk_token='<unk>')); t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    t.train_from_iterator([*TEXTS, 'quite other words'], trainers.BpeTrainer(vocab_size=90, special_tokens=['<s>', '<pad>', '</s>', '<unk>', 'de_DE', '<mask>'], show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=t, bos_token='<s>', pad_token='<pad>', eos_token='</s>', unk_token='<unk>', mask_token='<mask>', additional_special_tokens=['de_DE']).save_pretrained(tmp_path)
    c = gfslt_config('smoke'); n = t.get_vocab_size()
    full = MBartModel(MBartConfig(vocab_size=n, d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, scale_embedding=True)).eval(); full.save_pretrained(tmp_path)
    pieces = mbart_pieces(tmp_path, TEXTS); table = full.shared.weight
    assert pieces.rows[:4] == (1, 4, 2, 3) and len(pieces) < n and [round_trip(pieces, x) for x in TEXTS] == TEXTS and len(mbart_pieces(tmp_path, TEXTS, trim=False)) > len(pieces)
    model = VLP(c, len(pieces)); load_mbart(model, tmp_path, pieces); own = model.text.embed_tokens.weight
    assert torch.equal(own[1:-1], table[list(pieces.rows)][1:]) and torch.equal(own[-1], table[5]) and not own[PAD].any()
    assert torch.equal(model.text.layers[0].fc1.weight, full.encoder.layers[0].fc1.weight)
    ids = torch.tensor([[BOS, *pieces.encode(TEXTS[0]), EOS]]); states, mask = model.eval().read(ids); rows = torch.tensor(pieces.rows)
    theirs = full.encoder(rows[torch.tensor([[*ids[0, 1:], BOS]])], attention_mask=mask.long()).last_hidden_state; assert torch.allclose(states, theirs, atol=1e-6) and c.activations == ('relu',)*3
    second = GFSLT(c, len(pieces)).eval(); load_mbart(second, tmp_path, pieces, 'decoder'); memory = torch.randn(1, 5, 64); assert second.config.activations == ('relu', 'gelu', 'relu')
    copy = GFSLT(second.config, len(pieces)).eval(); copy.load_state_dict(second.state_dict())  # the configuration takes the function along
    for m in (second, copy): assert torch.allclose(m.decoder.body(input_ids=ids, encoder_hidden_states=memory).last_hidden_state, full.decoder(input_ids=rows[ids], encoder_hidden_states=memory).last_hidden_state, atol=1e-6)
    with pytest.raises(InputError, match='load_mbart: heads: expected 4, as in the folder, found 8'): load_mbart(GFSLT(replace(c, heads=8), len(pieces)), tmp_path, pieces, 'decoder')
    with pytest.raises(InputError, match='load_mbart: text_heads: expected 4'): load_mbart(VLP(replace(c, text_heads=8), len(pieces)), tmp_path, pieces)
    assert mbart_pieces(tmp_path, TEXTS, level='char').level == 'char'
    with pytest.raises(InputError, match='load_mbart: .*fc1.weight|load_mbart: embed_positions|load_mbart: layers'): load_mbart(VLP(replace(c, ffn=64), len(pieces)), tmp_path, pieces)
    with pytest.raises(InputError, match='code that the tokenizer knows, found xx_XX'): mbart_pieces(tmp_path, TEXTS, 'xx_XX')
    with pytest.raises(InputError, match='no such folder'): mbart_pieces(tmp_path/'x', TEXTS)
    with pytest.raises(InputError, match='tokenizer of an mBART'): (tmp_path/'e').mkdir(); mbart_pieces(tmp_path/'e', TEXTS)


def test_an_embedding_that_is_not_scaled_is_refused(tmp_path):
    MBartModel(MBartConfig(vocab_size=20, d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match='scale_embedding: expected true'): load_mbart(VLP(gfslt_config('smoke'), 8), tmp_path, None)


def test_words_of_texts_without_spaces():
    p = build_pieces(['今天天气好', '明天有雨吗'], 40); p = Pieces(p.tokenizer, level='char'); b = GFSLTData(clips(2), ['今天天气好', '明天有雨'], p)([0, 1])
    assert b['word_lengths'].tolist() == [5, 4] and ((b['masked'] == len(p)).sum(1) == 1).all() and b['masked'][0].tolist()[1:3] != [len(p), EOS]
    with pytest.raises(InputError, match='level'): Pieces(p.tokenizer, level='line')


def test_a_profile_counts_the_decoder_of_each_so_many_steps():
    model, calls = VLP(gfslt_config('smoke', decoder_every=3), len(VOCABULARY)), []; restore = model.restore
    model.restore = lambda batch: calls.append(int(model.step)) or restore(batch)
    step_profile(model, data(), [0, 1], steps=2); assert calls == [0, 3, 6] and int(model.step) == 0


def test_pieces():
    p = build_pieces(TEXTS, 80); assert [round_trip(p, t) for t in TEXTS] == TEXTS and isinstance(p, Pieces)
    assert round_trip(build_pieces(TEXTS, 80, alphabet=8), TEXTS[0]) != TEXTS[0] and UNK in p.encode('ß')
    with pytest.raises(InputError, match='at least one word'): build_pieces([''])


def test_masks():
    words, M = TEXTS[5].split(), len(VOCABULARY); r = np.random.RandomState(0)
    for _ in range(50):
        h = masked_words(words, 'last', .15, r); assert h.sum() == 1 and h[-1]
        h = masked_words(words, 'random', .3, r); assert h.any() and masked_ids(VOCABULARY, words, h) == [M if x else VOCABULARY.encode(w)[0] for w, x in zip(words, h)]
    chars = build_vocabulary(['明天下雨'], 'char'); assert masked_ids(chars, list('明天下雨'), [False, True, True, False])[1:3] == [len(chars)]*2
    a, b = data()([0, 3]), data()([0, 3]); assert torch.equal(a['masked'], b['masked'])


def test_frame_batch():
    x = clips(3); b = frame_batch(x, [2, 0], every=3); assert b['lengths'].tolist() == [5, 3] and np.array_equal(b['frames'][:5], x[2][::3])
    set_seed(0); assert (frame_batch(x, [0], shift=2, light=.2, rng=np.random)['light'] - 1).abs() <= .2
    for k, message in ((dict(shift=1), 'random numbers'),):
        with pytest.raises(InputError, match=message): frame_batch(x, [0], **k)
    with pytest.raises(InputError, match=r'frames\[0\]: expected at least one frame'): frame_batch([x[0][:0]], [0])
    assert len(frame_batch(x, [2], longest=7, rng=np.random)['frames']) == 7
    u, f = np.full((2, 4), 200, np.uint8), np.full((2, 4), .7, np.float32)
    for pair in ([u, f], [f, u]):
        with pytest.raises(InputError, match=r'frames\[1\]: expected .* as in frames\[0\]'): frame_batch(pair, [0, 1])
    with pytest.raises(InputError, match=r'frames\[1\]: expected float32 \(T, 4\) as in frames\[0\], found float32 \(2, 3\)'): frame_batch([f, f[:, :3]], [0, 1])
    with pytest.raises(InputError, match=r'frames\[1\]: expected finite'): frame_batch([f, f*np.nan], [0, 1])


def test_long_clips_are_encoded_in_parts():
    d = GFSLTData(clips(6), TEXTS, VOCABULARY); assert d.batches() == [[5, 4, 3, 2, 1, 0]] and d.batches(most=40) == [[5], [4, 3], [2, 1, 0]] and d.batches(2) == [[5, 4], [3, 2], [1, 0]]
    set_seed(0); model = GFSLT(gfslt_config('smoke'), len(VOCABULARY)).eval(); whole = frame_features(model, d), translate(model, d, VOCABULARY); sizes = []
    model.visual.frame.most = 10*32**2; hook = model.visual.frame.body.register_forward_hook(lambda m, a, y: sizes.append(len(y)))
    for a, b in zip(whole[0], frame_features(model, d)): np.testing.assert_allclose(a, b, atol=1e-5)
    assert translate(model, d, VOCABULARY) == whole[1] and max(sizes) == 10
    sizes.clear(); translate_loss(model.train(), d([5])); assert sizes == [24]; hook.remove()  # BatchNorm sees the whole batch


def test_shapes_that_no_convolution_has():
    with pytest.raises(InputError, match='kernel: expected an odd'): gfslt_config('cpu', kernel=4)
    with pytest.raises(InputError, match='blocks: expected an integer'): gfslt_config('cpu', blocks=0)
    assert gfslt_config('paper', kernel=4).kernel == 4


@pytest.mark.parametrize('bad', [dict(frames='vit'), dict(pad='mirror'), dict(contrast='clip'), dict(heads=5), dict(frames='pose'), dict(size=30), dict(frames='resnet18'), dict(decoder_every=0), dict(frame_at='decoder')])
def test_bad_configurations(bad):
    with pytest.raises(InputError): gfslt_config('cpu', **bad)


def test_bad_batches():
    model = GFSLT(gfslt_config('smoke', blocks=2), len(VOCABULARY)); b = data()([0, 1])
    with pytest.raises(InputError, match='expected 21 frames in all, found 20'): model({**b, 'lengths': torch.tensor([9, 11])})
    with pytest.raises(InputError, match='at least one output'): model({**b, 'frames': b['frames'][:12], 'lengths': torch.tensor([3, 9])})
    with pytest.raises(InputError, match='uint8'): model({**b, 'frames': b['frames'].float()})
    with pytest.raises(InputError, match='6 texts'): evaluate_gfslt(model, data(), TEXTS[:2], VOCABULARY)


def test_beam_against_every_sentence():
    set_seed(0); v = build_vocabulary(['a b']); model = GFSLT(gfslt_config('smoke', longest=3), len(v)).eval(); x = frame_batch(clips(), [0, 2])
    got = translate(model, x, v, beam=64, alpha=0.); seen = model.visual(x).encoded
    from itertools import product
    said = [[BOS, *s, EOS] for n in range(4) for s in product((UNK, 4, 5), repeat=n)]
    for k in range(2):
        def score(s):
            lp = model.decoder(torch.tensor([s[:-1]]), seen.frames[k:k + 1], seen.mask[k:k + 1])[0]; lp = lp.log_softmax(-1); lp[:, [PAD, BOS]] = -math.inf
            return float(lp[range(len(s) - 1), s[1:]].sum())
        assert got[k] == v.decode(max(said, key=score)[1:])


def test_beam_takes_and_follows():
    set_seed(0); model = GFSLT(gfslt_config('smoke'), len(VOCABULARY)).eval(); d = data()
    together = translate(model, d, VOCABULARY, size=6); assert together == translate(model, d, VOCABULARY, size=1) and len(together) == 6


def test_conventions():
    h, r = ['a b c d e', 'x y'], ['a b c d f', 'x z']
    a, b = score_texts(h, r), score_texts(h, r, shards=2); assert a['bleu4'] != b['bleu4'] and b['bleu1'] == pytest.approx((score_texts(h[:1], r[:1])['bleu1'] + score_texts(h[1:], r[1:])['bleu1'])/2)
    assert score_texts(h, r, dot=' .')['bleu1'] > a['bleu1']


def test_training_learns_and_repeats():
    c = gfslt_config('smoke'); config = FitConfig(epochs=12, batch_size=6, lr=2e-3); losses = []
    for _ in range(2):
        set_seed(0); m = VLP(c, len(VOCABULARY)); r = fit(m, pretrain_loss, data(train=True, shift=1, light=.1), 6, config, progress=False); losses.append(r.step_losses)
    assert losses[0] == losses[1] and losses[0][-1] < .8*losses[0][0] and int(m.step) == 12
    t = GFSLT(c, len(VOCABULARY)); load_stage1(t, export_weights(m)); r = fit(t, translate_loss, data(train=True), 6, replace(config, epochs=40, lr=3e-3), progress=False)
    assert r.step_losses[-1] < .7*r.step_losses[0]


def _one(kind, loss, indices, model=None):
    set_seed(0); model = kind(gfslt_config('smoke'), len(VOCABULARY)).eval(); value = loss(model, data()(indices), lambda x, n, w: (x.square().sum((1, 2))/n).mean())[0]; value.backward()
    return value.detach(), {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


def _rank(rank, folder):
    torch.set_num_threads(1); torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    out = {}
    for kind, loss in ((VLP, pretrain_loss), (GFSLT, translate_loss)):
        value, grads = _one(kind, loss, [0, 2, 5, 1][2*rank:2*rank + 2])
        for g in grads.values(): torch.distributed.all_reduce(g)
        out[kind.__name__] = value, {k: g/2 for k, g in grads.items()}
    if not rank: torch.save(out, f'{folder}/out.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), 2); got = torch.load(tmp_path/'out.pt')
    for kind, loss in ((VLP, pretrain_loss), (GFSLT, translate_loss)):
        value, grads = _one(kind, loss, [0, 2, 5, 1]); theirs, own = got[kind.__name__]
        torch.testing.assert_close(value, theirs, rtol=1e-4, atol=1e-5); assert set(own) == set(grads) and any(k.startswith('visual.frame') for k in grads)
        for k, g in grads.items(): torch.testing.assert_close(own[k], g, rtol=2e-3, atol=1e-5)


def test_profile():
    for kind in (VLP, GFSLT):
        model = kind(gfslt_config('smoke'), len(VOCABULARY)); before = {k: v.clone() for k, v in model.state_dict().items()}; p = step_profile(model, data(), [0, 1, 2], steps=1)
        assert sum(p[f'{k} (%)'] for k in ('data', 'vision', 'text', 'optimiser')) == pytest.approx(100) and p['peak_mib'] > 0 and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
