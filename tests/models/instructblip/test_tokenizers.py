"""Prompts, answers and special tokens: what a folder's own tokenizer says, whatever its order."""

import json
import shutil

import pytest
import torch
import transformers
from helpers.commands import SAMPLE
from helpers.memories import remember, start
from safetensors.torch import load_file, save_file

import malmm_cli
from malmm_cli.errors import ModelError
from malmm_cli.models import tokens
from malmm_cli.models.generation import generate
from malmm_cli.models.instructblip import tokenizers
from malmm_cli.models.instructblip.load import load
from malmm_cli.settings import Decoding

PROMPT = "what is the red circle"


def rewrite(path, change):
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.fixture
def folder(vicuna_folder, tmp_path):
    return shutil.copytree(vicuna_folder, tmp_path / "model")


def move_words(folder, places):
    """The same model with its vocabulary in another order: `places` says what lies where now."""
    was = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    order = sorted(was, key=was.get)
    for word, place in places.items():
        order.remove(word)
        order.insert(place if place >= 0 else len(order) + 1 + place, word)
    now = {word: number for number, word in enumerate(order)}

    def move(content):
        content["model"]["vocab"] = now
        for token in content["added_tokens"]:
            token["id"] = now[token["content"]]

    rewrite(folder / "tokenizer.json", move)
    ids = {"bos_token_id": now["<s>"], "eos_token_id": now["</s>"], "pad_token_id": now["</s>"]}
    rewrite(folder / "config.json", lambda content: content["text_config"].update(ids))
    state = load_file(folder / "model.safetensors")
    rows = torch.tensor([was[word] for word in order])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        table = state[f"language_model.{name}"]
        table[: len(rows)] = table[rows].clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def said(folder, **options):
    """What a model says of pictures that are always the same."""
    net = load(folder)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=generator)
    memory = start(net, [PROMPT], length=2)
    tokens, _ = remember(net, net.encode_frames(frames)[None], memory)
    return generate(net, tokens, [PROMPT], Decoding(max_new_tokens=6, beams=2, **options))


@pytest.mark.parametrize(
    "places",
    [
        {"</s>": 0},
        {"</s>": 300},
        {"</s>": -1},
        {"<s>": -1, "<unk>": 17, "</s>": 40},
    ],
)
def test_the_order_of_a_vocabulary_changes_no_answer(folder, places):
    due = said(folder)
    assert any(text for text in due[0])
    move_words(folder, places)
    assert said(folder) == due
    words = load(folder).texts
    assert words.prompts([PROMPT], side="left")[0][0, 0] == words.language.eos_token_id


def test_a_start_token_of_its_own_begins_a_prompt(folder):
    rewrite(folder / "tokenizer_config.json", lambda content: content.update(bos_token="<s>"))
    texts = load(folder).texts
    plain = texts.language(PROMPT, add_special_tokens=False)["input_ids"]
    assert texts.prompts([PROMPT], side="left")[0].tolist() == [[1, *plain]]
    ids, _, labels = texts.prompts_with_answers([PROMPT], ["red"])
    assert ids[0, 0] == 1
    assert (ids[0, -1], labels[0, -1]) == (2, 2)


def add_template(folder, single):
    """Let the tokenizer put special tokens around a text by itself."""

    def change(content):
        special = {
            "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
            "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]},
        }
        parts = [
            {"Sequence": {"id": "A", "type_id": 0}}
            if part == "A"
            else {"SpecialToken": {"id": part, "type_id": 0}}
            for part in single
        ]
        content["post_processor"] |= {"single": parts, "special_tokens": special}

    rewrite(folder / "tokenizer.json", change)
    rewrite(
        folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class="TokenizersBackend")
    )


@pytest.mark.parametrize(
    ("single", "first"), [("<s> A", [1]), ("<s> A </s>", [1]), ("A", [2]), ("A </s>", [2])]
)
def test_what_a_tokenizer_begins_with_is_kept_and_its_end_is_not(folder, single, first):
    add_template(folder, single.split())
    texts = load(folder).texts
    plain = texts.language(PROMPT, add_special_tokens=False)["input_ids"]
    assert texts.prompts([PROMPT], side="left")[0].tolist() == [[*first, *plain]]


def test_an_end_that_a_tokenizer_adds_is_no_part_of_a_prompt_without_a_start(folder):
    add_template(folder, ["A", "</s>"])
    rewrite(folder / "tokenizer_config.json", lambda content: content.update(bos_token=None))
    texts = load(folder).texts
    plain = texts.language(PROMPT, add_special_tokens=False)["input_ids"]
    assert texts.prompts([PROMPT], side="left")[0].tolist() == [plain]


def test_a_tokenizer_without_a_start_token(folder):
    rewrite(folder / "tokenizer_config.json", lambda content: content.update(bos_token=None))
    texts = load(folder).texts
    plain = texts.language(PROMPT, add_special_tokens=False)["input_ids"]
    assert texts.prompts([PROMPT], side="left")[0].tolist() == [plain]
    mask = texts.prompts(["", PROMPT], side="left")[1]
    assert mask.sum(1).tolist() == [0, len(plain)]


def test_every_end_that_is_given_ends_an_answer(folder):
    """Those of generation_config.json and of the configuration, where they are special tokens."""
    net = load(folder)
    assert net.texts.ends == [2]
    red = net.texts.language.convert_tokens_to_ids("▁red")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 1, red]}))
    assert load(folder).texts.ends == [1, 2], "a word that one can say ends nothing"
    rewrite(folder / "config.json", lambda c: c["text_config"].update(eos_token_id=[2, 0]))
    assert load(folder).texts.ends == [0, 1, 2]
    (folder / "generation_config.json").unlink()
    rewrite(folder / "config.json", lambda c: c["text_config"].update(eos_token_id=red))
    assert load(folder).texts.ends == [2], "the tokenizer knows its own end"


def test_an_end_that_the_configuration_alone_knows_is_not_said(folder):
    """Some tokenizers know their end token as a word like any other."""
    rewrite(folder / "tokenizer_config.json", lambda c: c.update(eos_token=None, bos_token=None))
    net = load(folder)
    red, blue = net.texts.language.convert_tokens_to_ids(["▁red", "▁blue"])
    assert net.texts.ends == [2]
    rewrite(folder / "config.json", lambda c: c["text_config"].update(eos_token_id=blue))
    texts = load(folder).texts
    assert texts.ends == [blue]
    assert texts.decode(torch.tensor([[red, red, blue, blue]])) == ["red red"]


@pytest.mark.parametrize("part", ["", "qformer_tokenizer"])
def test_what_a_tokenizer_has_no_token_for_is_told(folder, part):
    def change(content):
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "[UNK]"]
        content["pre_tokenizer"] = {"type": "Whitespace"}
        content["normalizer"] = None
        vocab = {"a": 0, "what": 1, "</s>": 2, "[PAD]": 3}
        content["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
        content["post_processor"] = content["decoder"] = None
        content["added_tokens"] = []

    rewrite(folder / part / "tokenizer.json", change)
    words = {"tokenizer_class": "TokenizersBackend", "pad_token": "[PAD]", "eos_token": "</s>"}
    (folder / part / "tokenizer_config.json").write_text(json.dumps(words))
    texts = load(folder).texts
    read = texts.instructions if part else lambda prompts: texts.prompts(prompts, side="left")
    assert read(["what a"])[0].tolist() == [[1, 0]]
    with pytest.raises(ModelError, match=r"cannot read 'what ☃'.*UNK"):
        read(["what ☃"])


def test_special_tokens_that_the_q_former_has_no_place_for(folder):
    path = folder / "qformer_tokenizer" / "tokenizer.json"
    first = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}

    def change(content):
        content["post_processor"]["single"][:0] = [first] * 200

    rewrite(path, change)
    own = {"tokenizer_class": "TokenizersBackend"}
    rewrite(path.with_name("tokenizer_config.json"), lambda content: content.update(own))
    with pytest.raises(ModelError, match="reads 128 tokens, but its tokenizer returned 2"):
        load(folder).texts.instructions([PROMPT])


@pytest.mark.parametrize("part", ["", "qformer_tokenizer"])
def test_a_template_of_ids_beyond_the_vocabulary_is_refused(folder, part):
    def change(content):
        special = {"<s>": {"id": "<s>", "ids": [10**6], "tokens": ["<s>"]}}
        single = [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ]
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": special,
        }

    rewrite(folder / part / "tokenizer.json", change)
    rewrite(
        folder / part / "tokenizer_config.json",
        lambda c: c.update(tokenizer_class="TokenizersBackend"),
    )
    with pytest.raises(ModelError, match="has 1000001 tokens"):
        load(folder)


def test_ids_without_a_word_are_passed_over(vicuna_folder):
    texts = load(vicuna_folder).texts
    red = texts.language.convert_tokens_to_ids("▁red")
    beyond = len(texts.language) + 3
    assert texts.decode(torch.tensor([[0, 1, red, beyond, red, 2, 2]])) == ["red red"]


def test_an_instruction_without_a_padding_token(folder):
    due = load(folder).texts.instructions([PROMPT, "what"])
    path = folder / "qformer_tokenizer" / "tokenizer_config.json"
    rewrite(path, lambda content: content.update(pad_token=None))
    found = load(folder).texts.instructions([PROMPT, "what"])
    assert torch.equal(found[1], due[1])
    assert torch.equal(found[0] * found[1], due[0] * due[1])


@pytest.mark.parametrize("given", [None, 0, 3])
def test_where_an_encoder_decoder_starts(t5_folder, tmp_path, given):
    folder = shutil.copytree(t5_folder, tmp_path / "t5")
    rewrite(folder / "config.json", lambda c: c["text_config"].pop("decoder_start_token_id"))
    if given is not None:
        content = {"decoder_start_token_id": given}
        (folder / "generation_config.json").write_text(json.dumps(content))
    assert load(folder).language_model.config.decoder_start_token_id == (given or 0)
    texts = said(folder)
    assert len(texts[0]) == 2


def test_another_kind_of_language_model_says_what_transformers_does(vicuna_folder, tmp_path):
    """Gemma: its start token is not its end token, and its vocabulary begins with <pad>."""
    folder = shutil.copytree(vicuna_folder, tmp_path / "gemma")
    move_words(folder, {"</s>": 1, "<s>": 2})
    text = {
        "model_type": "gemma",
        "vocab_size": 0,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }

    def change(content):
        content["text_config"] = text | {"vocab_size": content["text_config"]["vocab_size"]}

    rewrite(folder / "config.json", change)
    rewrite(folder / "tokenizer_config.json", lambda c: c.update(bos_token="<s>"))
    state = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())["text_config"]
    torch.manual_seed(0)
    gemma = transformers.GemmaForCausalLM(transformers.GemmaConfig.from_dict(config)).eval()
    state = {k: v for k, v in state.items() if not k.startswith("language_model.")}
    own = {k: v.clone() for k, v in gemma.state_dict().items() if k != "lm_head.weight"}
    state |= {f"language_model.{name}": value for name, value in own.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    net = load(folder)
    tokens = torch.randn(1, 8, 96, generator=torch.Generator().manual_seed(1))
    ours = generate(
        net, tokens, [PROMPT], Decoding(beams=1, max_new_tokens=5, repetition_penalty=1.0)
    )
    words = torch.tensor([[2, *net.texts.language(PROMPT, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        seen = net.language_projection(tokens)
        embeds = torch.cat([seen, gemma.get_input_embeddings()(words)], 1)
        due = gemma.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.int64),
            max_new_tokens=5,
            do_sample=False,
        )
    assert ours == [net.texts.language.batch_decode(due, skip_special_tokens=True)]


@pytest.mark.parametrize("folder", ["t5_folder", "vicuna_folder"])
def test_each_tokenizer_reads_a_prompt_once(folder, request, monkeypatch):
    read, encode = [], tokens.encoded

    def noted(tokenizer, text, **how):
        read.append(text)
        return encode(tokenizer, text, **how)

    for module in (tokens, tokenizers):
        monkeypatch.setattr(module, "encoded", noted)
    model = malmm_cli.load(str(request.getfixturevalue(folder)))
    read.clear()
    few = {"frames": 3, "beams": 1, "max_new_tokens": 2}
    malmm_cli.ask(SAMPLE, ["what moves?"], model=model, **few)
    assert read == ["Question: what moves? Short answer:"] * 2
