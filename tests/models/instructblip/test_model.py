"""The model's own behaviour: state that does not leak, sharing, policies, transformers' equal."""

from itertools import pairwise

import pytest
import torch
import transformers
from helpers.memories import remember, start

from malmm_cli.errors import CapacityError, ModelError, UsageError
from malmm_cli.models.context import Context
from malmm_cli.models.device import pick_dtype
from malmm_cli.models.generation import generate
from malmm_cli.models.instructblip import random_init
from malmm_cli.models.instructblip.load import load
from malmm_cli.models.instructblip.positions import position
from malmm_cli.settings import Decoding, MemoryOptions

WORDS = [
    "what",
    "does",
    "the",
    "video",
    "describe",
    "red",
    "circle",
    "how",
    "many",
    "short",
    "answer",
]
PROMPTS = ["what does the video describe?", "how many?", "Question: red circle? Short answer:"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for language in ("vicuna", "flan-t5"):
        random_init.write(root / language, random_init.tiny_config(language), WORDS)
    random_init.write(
        root / "with positions",
        random_init.tiny_config("vicuna"),
        WORDS,
        positions=6,
        dtype=torch.float32,
    )
    return root


@pytest.fixture(scope="module")
def net(folders):
    return load(folders / "with positions")


@pytest.fixture
def features(net):
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (9, net.image_size, net.image_size, 3), dtype=torch.uint8)
    return net.encode_frames(frames)[None]


def watch(net, features, prompts=PROMPTS[:1], **options):
    memory = start(net, prompts, **{"length": 3, **options})
    tokens, _ = remember(net, features, memory)
    return tokens


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


@pytest.mark.parametrize("policy", ["mbc", "fifo", "average", "last"])
@pytest.mark.parametrize("length", [0, 1, 3, 20])
def test_every_split_is_one_shot(net, features, policy, length):
    whole = watch(net, features, length=length, policy=policy)
    for cuts in ([0, 1, 9], [0, 4, 5, 9], list(range(10))):
        memory = start(net, PROMPTS[:1], length=length, policy=policy)
        for begin, end in pairwise(cuts):
            tokens, memory = remember(net, features[:, begin:end], memory)
        close(tokens, whole)
        assert memory.frames == 9


def test_two_videos_at_once_do_not_meet(net, features):
    other = features.flip(1)
    due = watch(net, features), watch(net, other)
    first, second = (start(net, PROMPTS[:1], length=3) for _ in range(2))
    for step in range(9):
        a, first = remember(net, features[:, step : step + 1], first)
        b, second = remember(net, other[:, step : step + 1], second)
    assert torch.equal(a, due[0])
    assert torch.equal(b, due[1])


def test_padding_of_prompts_has_no_say_where_whole_frames_are_merged(net):
    torch.manual_seed(2)
    how = {"banks": "query", "merge": "frame"}
    for frames in torch.randn(8, 1, 9, 65, 96):
        together = watch(net, frames, PROMPTS, **how)
        close(together, torch.cat([watch(net, frames, [prompt], **how) for prompt in PROMPTS]))


def test_a_copy_goes_its_own_way(net, features):
    _, memory = remember(net, features[:, :6], start(net, PROMPTS[:1], length=3))
    kept = memory.copy()
    remember(net, features[:, :1], memory)
    tokens, _ = remember(net, features[:, 6:], kept)
    assert torch.equal(tokens, watch(net, features))


def test_the_plain_form_of_a_memory_has_the_same_slots(net, features):
    memory = start(net, PROMPTS[:1], length=3)
    remember(net, features, memory)
    plain, slots = memory.plain().slots(), memory.slots()
    for name in ("rows", "counts", "seconds"):
        assert torch.equal(getattr(plain, name), getattr(slots, name))


def test_what_learns_is_in_the_folder_and_tokens_do_not_grow(net):
    assert net.trainable().keys() <= net.state_dict().keys()
    how = MemoryOptions(3)
    assert net.visual_tokens(how, 5) == net.visual_tokens(how, 50)


@pytest.mark.parametrize("options", [{}, {"length": 0}, {"policy": "average"}, {"policy": "last"}])
def test_prompts_share_a_video(net, features, options):
    """Many questions in one visual pass get the tokens that each gets alone."""
    together = watch(net, features, PROMPTS, **options)
    for row, prompt in enumerate(PROMPTS):
        close(together[row : row + 1], watch(net, features, [prompt], **options), 2e-5)


def test_videos_side_by_side(net, features):
    """Two videos with two prompts each, as one batch: as if each were alone."""
    both = torch.cat([features, features.flip(1)])
    tokens = watch(net, both, [*PROMPTS[:2], *PROMPTS[:2]])
    close(tokens[:2], watch(net, features, PROMPTS[:2]), 2e-5)
    close(tokens[2:], watch(net, features.flip(1), PROMPTS[:2]), 2e-5)


def test_visual_bank_is_shared_by_prompts(net, features):
    memory = start(net, PROMPTS, length=3)
    remember(net, features, memory)
    assert memory.visual.rows.shape[0] == 1
    assert {bank.rows.shape[0] for bank in memory.queries[1:]} == {len(PROMPTS)}


def test_memory_does_not_grow(net, features):
    def size(memory):
        banks = [memory.visual, *memory.queries[1:]]
        return sum(t.numel() for bank in banks for t in [bank.rows, *bank.projections])

    memory = start(net, PROMPTS[:1], length=3)
    remember(net, features[:, :4], memory)
    before = size(memory)
    for _ in range(5):
        remember(net, features, memory)
    assert size(memory) == before
    assert memory.frames == 49


def test_policies_are_what_they_are_called(net, features):
    apart = watch(net, features, length=0).view(1, 9, net.num_queries, -1)
    close(watch(net, features, policy="average"), apart.mean(1))
    newest = start(net, PROMPTS[:1], length=3, policy="last")
    newest.frames = 8  # its position embedding is kept
    alone, _ = remember(net, features[:, -1:], newest)
    assert torch.equal(watch(net, features, policy="last"), alone)
    assert torch.equal(watch(net, features, banks="none"), alone)
    close(watch(net, features, length=20), watch(net, features, length=20, policy="fifo"))
    assert not torch.allclose(watch(net, features), watch(net, features, policy="fifo"))


def test_banks_switch_on_their_own(net, features):
    found = {
        banks: watch(net, features, banks=banks) for banks in ("both", "visual", "query", "none")
    }
    for a, b in pairwise(found.values()):
        assert not torch.allclose(a, b, atol=1e-3)
    memory = start(net, PROMPTS[:1], length=3, banks="visual")
    assert memory.visual is not None
    assert memory.queries == [None] * 4


def test_layer_0_has_no_bank_to_pay_for(net, features):
    memory = start(net, PROMPTS[:1], length=3)
    assert memory.queries[0] is None
    ids, mask = net.texts.instructions(PROMPTS[:1])
    with torch.no_grad():
        kept = net.start_from_ids(ids, mask, length=3, first_layer=True)
    assert kept.queries[0] is not None
    tokens, _ = remember(net, features, kept)
    close(tokens, watch(net, features))


def test_positions_beyond_the_table(net):
    """Six rows of positions: as they are, stretched over a longer video, or the last one kept."""
    table = net.position_embedding.weight
    assert torch.equal(position(table, 3, 6), table[3])
    assert torch.equal(position(table, 3, None), table[3])
    assert torch.equal(position(table, 99, None), table[5])
    close(position(table, 0, 11), table[0])
    close(position(table, 1, 11), (table[0] + table[1]) / 2)
    close(position(table, 10, 11), table[5])


def test_positions_are_optional(folders):
    assert load(folders / "vicuna").position_embedding is None


@pytest.mark.parametrize("language", ["vicuna", "flan-t5"])
def test_one_frame_without_memory_is_transformers_instructblip(folders, language):
    """Same folder, same picture, same words: the same first logits, and the same text."""
    net = load(folders / language)
    theirs = transformers.InstructBlipForConditionalGeneration.from_pretrained(folders / language)
    theirs = theirs.eval().float()
    theirs.vision_model.post_layernorm.eps = net.vision_model.post_layernorm.eps
    torch.manual_seed(2)
    pixels = torch.randn(1, 3, net.image_size, net.image_size)
    with torch.no_grad():
        features = net.encode_pixels(pixels)
        tokens = watch(net, features[None], length=0)
        embeds, mask = net.embed(tokens, PROMPTS[:1])
        ids, attention = net.texts.instructions(PROMPTS[:1])
        words, seen = net.texts.prompts(PROMPTS[:1], side="left")
        image_token = net.texts.language.convert_tokens_to_ids("~")  # not in the prompt
        theirs.config.image_token_id = theirs.config.image_token_index = image_token
        visual = torch.full((1, net.num_queries), image_token)
        inputs = {
            "pixel_values": pixels,
            "qformer_input_ids": ids,
            "qformer_attention_mask": attention,
            "input_ids": torch.cat([visual, words], 1),
            "attention_mask": torch.cat([torch.ones_like(visual), seen], 1),
        }
        more = {"decoder_input_ids": torch.tensor([[0]])} if language == "flan-t5" else {}
        due = theirs(**inputs, **more).logits[:, -1]
        ours = net.language_model(inputs_embeds=embeds, attention_mask=mask, **more).logits[:, -1]
    close(ours, due, 2e-5)


@pytest.mark.parametrize("language", ["vicuna", "flan-t5"])
def test_training_form_is_the_inference_form(folders, language):
    net = load(folders / language)
    torch.manual_seed(3)
    features = torch.randn(2, 7, 65, 96)
    ids, mask = net.texts.instructions(PROMPTS[:2])
    for options in ({"length": 3}, {"length": 0}, {"length": 3, "policy": "average"}):
        trained = net.remember_for_training(features, ids, mask, **options)
        close(trained, watch(net, features, PROMPTS[:2], **options), 2e-5)
    net.requires_grad_(True)
    tokens = net.remember_for_training(features, ids, mask, length=3)
    loss = net.loss(Context(tokens), PROMPTS[:2], ["a red circle", "left"])
    loss.backward()
    assert loss.isfinite()
    first = net.qformer.encoder.layer[0].attention.attention
    assert first.value.weight.grad.abs().sum() > 0


def test_dropout_in_training_makes_layer_0_vary(folders):
    net = load(folders / "vicuna")
    net.qformer.train()
    ids, mask = net.texts.instructions(PROMPTS[:1])
    seen = []
    first = net.qformer.encoder.layer[0]
    hook = first.attention.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    net.remember_for_training(torch.randn(1, 4, 65, 96), ids, mask, length=2)
    hook.remove()
    assert len(seen) == 4
    assert all(not torch.equal(a, b) for a, b in pairwise(seen))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(folders, dtype):
    whole, half = load(folders / "with positions"), load(folders / "with positions", dtype=dtype)
    torch.manual_seed(4)
    frames = torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8)
    due = watch(whole, whole.encode_frames(frames)[None])
    got = watch(half, half.encode_frames(frames)[None])
    assert got.dtype == dtype
    assert (got.float() - due).norm() < 0.1 * due.norm()


def test_sampling_is_repeatable_and_leaves_no_trace(net, features):
    tokens = watch(net, features)
    drawn = Decoding(max_new_tokens=12, beams=1, sample=True, temperature=2.0, seed=5)
    state = torch.get_rng_state()
    texts = [generate(net, tokens, PROMPTS[:1], drawn) for _ in range(2)]
    assert texts[0] == texts[1]
    assert torch.equal(torch.get_rng_state(), state)
    other = Decoding(max_new_tokens=12, beams=1, sample=True, temperature=2.0, seed=6)
    assert generate(net, tokens, PROMPTS[:1], other) != texts[0]
    greedy = Decoding(max_new_tokens=12, beams=1)
    assert generate(net, tokens, PROMPTS[:1], greedy) == generate(net, tokens, PROMPTS[:1], greedy)


def test_candidates_are_as_many_as_beams(net, features):
    tokens = watch(net, features, PROMPTS)
    found = generate(net, tokens, PROMPTS, Decoding(max_new_tokens=4, beams=3))
    assert [len(candidates) for candidates in found] == [3, 3, 3]


def test_too_many_tokens_for_the_language_model(net, features):
    tokens = watch(net, features, length=0).repeat(1, 20, 1)  # as if of 180 frames
    with pytest.raises(CapacityError, match="1440 visual tokens") as caught:
        generate(net, tokens, PROMPTS[:1], Decoding())
    assert "--memory" in caught.value.hint


def test_control_characters_never_reach_a_terminal(net):
    escape = net.texts.language.convert_tokens_to_ids("<0x1B>")
    red = net.texts.language.convert_tokens_to_ids("▁red")
    assert net.texts.decode(torch.tensor([[red, escape, red]])) == ["red  red"]


def test_shards_are_one_model(folders, tmp_path):
    random_init.write(tmp_path, random_init.tiny_config("vicuna"), WORDS, max_shard_size="400KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    whole, shards = load(folders / "vicuna"), load(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), shards.parameters(), strict=True)
    )


def test_published_mistakes_are_tolerated(folders, tmp_path):
    """The video classes named by mistake, and buffers that older versions stored."""
    import json
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders / "vicuna", tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "instructblipvideo", "image_token_index": 32000}
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    state["qformer.embeddings.position_ids"] = torch.arange(256)[None]
    state["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(12)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).num_queries == 8


def test_strict_loading_names_what_is_wrong(folders, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders / "flan-t5", tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    for change, named in (
        (lambda s: s.pop("query_tokens"), "missing query_tokens"),
        (lambda s: s.update(extra=torch.ones(1)), "unexpected extra"),
        (lambda s: s.update(query_tokens=torch.ones(1, 2, 3)), r"query_tokens is \(1, 2, 3\)"),
        (lambda s: s.pop("language_model.lm_head.weight"), "missing lm_head.weight"),
        (
            lambda s: s.pop("vision_model.post_layernorm.bias"),
            "missing vision_model.post_layernorm.bias",
        ),
    ):
        changed = dict(state)
        change(changed)
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=named):
            load(folder)


@pytest.mark.parametrize("language", ["vicuna", "flan-t5"])
@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_quantised_language_model(folders, language, quantize):
    """The language model alone lies in fewer bits: given the same, it says nearly the same."""
    pytest.importorskip("bitsandbytes", reason="pip install 'malmm[quantize]'")
    whole, small = load(folders / language), load(folders / language, quantize=quantize)
    torch.manual_seed(6)
    frames = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    due, got = (watch(net, net.encode_frames(frames)[None]) for net in (whole, small))
    assert torch.equal(due, got)
    sizes = [net.language_model.get_memory_footprint() for net in (whole, small)]
    assert sizes[1] < 0.7 * sizes[0]
    start = {"decoder_input_ids": torch.tensor([[0]])} if language == "flan-t5" else {}
    logits = []
    for net in (whole, small):
        embeds, mask = net.embed(got, PROMPTS[:1])
        with torch.no_grad():
            out = net.language_model(inputs_embeds=embeds, attention_mask=mask, **start)
        logits.append(out.logits[:, -1].float())
    near = {"8bit": 0.1, "4bit": 0.5}[quantize]  # random weights take rounding worst
    assert (logits[0] - logits[1]).norm() < near * logits[0].norm()
    assert generate(small, got, PROMPTS[:1], Decoding(max_new_tokens=3))[0][0]


def test_quantisation_that_cannot_be(folders, monkeypatch):
    with pytest.raises(UsageError, match="unknown quantization '2bit'"):
        load(folders / "vicuna", quantize="2bit")
    monkeypatch.setattr("malmm_cli.models.placement.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--quantize needs accelerate and bitsandbytes") as caught:
        load(folders / "vicuna", quantize="4bit")
    assert "malmm[quantize]" in caught.value.hint


@pytest.mark.parametrize(
    ("free", "due"), [(None, torch.float32), (40, torch.float32), (39, torch.bfloat16)]
)
def test_numbers_on_a_cpu_fit_its_memory(free, due):
    assert pick_dtype("auto", torch.device("cpu"), parameters=10, free=free) == due
    assert pick_dtype("float32", torch.device("cpu"), parameters=10, free=free) == torch.float32


def test_a_long_instruction_is_cut_on_the_left(net):
    """The end of a prompt, where the question is, reaches the Q-Former; as in the reference."""
    ids, _ = net.texts.instructions(["red " * 300 + "circle"])
    kept = net.texts.instruction.convert_ids_to_tokens(ids[0].tolist())
    assert len(kept) == net.texts.instruction_limit
    assert kept[0] == "[CLS]"
    assert kept[-2:] == ["circle", "[SEP]"]


def test_a_configuration_that_makes_no_model(folders, tmp_path):
    import json
    import shutil

    folder = shutil.copytree(folders / "vicuna", tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    config["qformer_config"]["num_attention_heads"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="96 is not divisible by 5 heads"):
        load(folder)


def test_spread_over_all_devices_says_the_same(folders):
    """accelerate places the language model's layers; here all of them land on the CPU."""
    pytest.importorskip("accelerate", reason="pip install 'malmm[quantize]'")
    torch.manual_seed(7)
    frames = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    texts = []
    for spread in (False, True):
        net = load(folders / "vicuna", spread=spread)
        tokens = watch(net, net.encode_frames(frames)[None])
        texts.append(generate(net, tokens, PROMPTS[:1], Decoding(max_new_tokens=5)))
    assert texts[0] == texts[1]
