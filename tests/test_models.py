"""Any causal model, tokenizer and adapter: right, or refused in a sentence; the slow lane tries every architecture."""

from __future__ import annotations

import importlib.util
import json
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from gdrt_lite import attribution, decoding, lm, prompts, training
from gdrt_lite.ablation import ablate
from gdrt_lite.data import Example
from gdrt_lite.prompts import BOS, HISTORY, PREFIX, SEGMENT_NAMES, TASK
from gdrt_lite.system.errors import GdrtError
from gdrt_lite.trie import TitleTrie

TITLES = ("Toy Story (1995)", "Heat (1995)", "Alien (1979)", "Aliens (1986)", "Jumanji (1995)", "Heat", "Heat 2", "Up")
EXAMPLES = [Example("a", TITLES[:3], "Aliens (1986)", 0), Example("b", TITLES[3:8], "Heat 2", 1)]
LLAMA = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8
)
QUERY_VALUE = dict(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def tokenizer():
    return lm.pocket(TITLES).tokenizer


def small(kind, tokenizer, folder, seed=0, **settings) -> Path:
    """A folder with a tiny model of random weights, large enough that what is ignored shows."""
    own = dict(
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(own | settings)))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.dim() == 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder, **more) -> lm.LanguageModel:
    return lm.load(folder, **({"dtype": torch.float32, "device": "cpu"} | more))


def plain(folder, row) -> torch.Tensor:
    """transformers' own eager forward of one prompt, masked tokens as a 0/1 mask."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    more = (
        {} if all(row.attend) else dict(attention_mask=torch.tensor([row.attend]), position_ids=torch.arange(len(row))[None])
    )
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([row.ids]), use_cache=False, **more).logits[0].log_softmax(-1)
    return scores[list(row.predict_at), list(row.labels)]


def scores(model) -> torch.Tensor:
    return torch.cat(lm.target_logprobs(model, [model.encode(e.history, e.target) for e in EXAMPLES]))


def tune(model, **settings) -> training.TuningResult:
    args = training.arguments(
        model, max_steps=settings.pop("steps", 3), batch_size=2, learning_rate=settings.pop("rate", 1e-2)
    )
    return training.finetune(model, EXAMPLES, "sft", args, progress=False, **settings)


# ----------------------------------------------------------------------------------------------- architectures

ODD = {
    "sliding window": ("mistral", LLAMA | dict(sliding_window=24)),
    "local attention by place": (
        "gpt_neo",
        dict(hidden_size=32, num_layers=4, num_heads=4, attention_types=[[["global", "local"], 2]], window_size=24),
    ),
    "recurrent": ("recurrent_gemma", LLAMA | dict(num_hidden_layers=3, num_key_value_heads=1, lru_width=32)),
    "convolution": ("lfm2", LLAMA | dict(layer_types=["conv", "full_attention"] * 2)),
    "ALiBi": ("mpt", dict(d_model=32, n_layers=2, n_heads=4)),
    "value heads of another width": (
        "deepseek_v3",
        dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4)
        | dict(q_lora_rank=16, kv_lora_rank=16, first_k_dense_replace=2),
    ),
    "no cache": ("openai-gpt", dict(n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_architecture_scores_as_transformers_own_forward(tokenizer, tmp_path, name):
    kind, settings = ODD[name]
    model = load(small(kind, tokenizer, tmp_path, **settings))
    rows = [model.encode(e.history, e.target) for e in EXAMPLES]
    for row, got in zip(rows, lm.target_logprobs(model, rows), strict=True):
        torch.testing.assert_close(got, plain(tmp_path, row), atol=5e-4, rtol=0)
    expected = {title: float(plain(tmp_path, model.encode(TITLES[:2], title)).sum()) for title in TITLES}
    for title, score in decoding.score_catalogue(model, TITLES[:2], TITLES):
        assert score == pytest.approx(expected[title], abs=2e-3)
    first = tune(model).history.loss[0]
    assert first == pytest.approx(-torch.cat([plain(tmp_path, row) for row in rows]).mean().item(), abs=1e-3)


@pytest.mark.parametrize("name", ODD)
def test_the_attention_ablation_is_a_masked_forward_or_has_no_meaning(tokenizer, tmp_path, name):
    kind, settings = ODD[name]
    model = load(small(kind, tokenizer, tmp_path, **settings))
    if name in ("recurrent", "convolution", "ALiBi"):
        with pytest.raises(ValueError, match="has no meaning for this model"):
            attribution.feature_ablation(model, EXAMPLES, "attention")
        return
    frame = attribution.feature_ablation(model, EXAMPLES, "attention")
    for i, example in enumerate(EXAMPLES):
        row = model.encode(example.history, example.target)
        for segment in (TASK, HISTORY):
            without = ablate(row, segment, "attention", attribution.neutral_id(model))
            got = frame[(frame.example == i) & (frame.segment == SEGMENT_NAMES[segment])].attribution.to_numpy()
            expected = plain(tmp_path, row) - plain(tmp_path, without)
            torch.testing.assert_close(torch.tensor(got).float(), expected, atol=1e-3, rtol=0)


def test_a_decoder_that_wraps_its_keys_and_values_shares_them(tokenizer, tmp_path):
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, is_decoder=True)
    model = load(small("megatron-bert", tokenizer, tmp_path, **sizes))
    assert model.packed > 4096
    (ranked,) = decoding.recommend(model, [TITLES[:2]], TITLES, k=len(TITLES))
    expected = {title: float(plain(tmp_path, model.encode(TITLES[:2], title)).sum()) for title in TITLES}
    assert dict(ranked) == pytest.approx(expected, abs=2e-3)


def test_a_model_whose_shared_opening_breaks_off_is_read_alone(tokenizer, tmp_path, monkeypatch):
    def broken(*_):
        raise AttributeError("layers")

    folder = small("llama", tokenizer, tmp_path, **LLAMA)
    monkeypatch.setattr(importlib.import_module("gdrt_lite.lm.scoring"), "keys_and_values", broken)
    model = load(folder)
    assert model.packed == 0
    row = model.encode(TITLES[:2], "Up")
    torch.testing.assert_close(lm.target_logprobs(model, [row])[0], plain(folder, row), atol=5e-4, rtol=0)


def test_prompts_of_a_sliding_model_share_a_batch_up_to_its_window(tokenizer, tmp_path):
    far = load(small("mistral", tokenizer, tmp_path / "far", sliding_window=4096, **LLAMA))
    near = load(small("mistral", tokenizer, tmp_path / "near", sliding_window=100, **LLAMA))
    assert (far.packed, near.packed) == (2048, 50)


def test_an_encoder_is_no_causal_model(tokenizer, tmp_path):
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    with pytest.raises(GdrtError, match="no causal language model"):
        load(small("bert", tokenizer, tmp_path, **sizes))


def test_float64_scores(tokenizer, tmp_path):
    model = load(small("llama", tokenizer, tmp_path, **LLAMA), dtype=torch.float64)
    torch.testing.assert_close(scores(model), scores(load(tmp_path)), atol=1e-4, rtol=0)


def test_float16_is_not_trained_on_a_cpu(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="float16 cannot be trained on a CPU"):
        tune(load(small("llama", tokenizer, tmp_path, **LLAMA), dtype=torch.float16))


def test_float16_is_trained_under_autocast_on_a_gpu(monkeypatch):
    given = {}

    class Arguments:
        world_size = gradient_accumulation_steps = 1

        def __init__(self, **settings):
            given.update(settings)

    monkeypatch.setattr(importlib.import_module("gdrt_lite.training.arguments"), "TrainingArguments", Arguments)
    model = SimpleNamespace(name="x", device=torch.device("cuda"), model=SimpleNamespace(dtype=torch.float16))
    training.arguments(model)
    assert (given["fp16"], given["bf16"], given["use_cpu"]) == (True, False, False)


# --------------------------------------------------------------------------------------------------- adapters


def test_a_model_tuned_twice_is_saved_with_both_steps(tokenizer, tmp_path):
    folder = small("llama", tokenizer, tmp_path / "base", **LLAMA)
    base = load(folder)
    before = scores(base)
    two = tune(tune(base).lm)
    again = load(folder, adapter=two.save(tmp_path / "two"))
    torch.testing.assert_close(scores(again), scores(two.lm), atol=1e-5, rtol=0)
    three = tune(again)
    torch.testing.assert_close(
        scores(load(folder, adapter=three.save(tmp_path / "three"))), scores(three.lm), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(scores(base), before, atol=0, rtol=0)


def test_the_folder_of_an_adapter_stands_for_base_and_adapter(tokenizer, tmp_path):
    run = tune(load(small("llama", tokenizer, tmp_path / "base", **LLAMA)))
    model = load(run.save(tmp_path / "adapter"))
    torch.testing.assert_close(scores(model), scores(run.lm), atol=1e-5, rtol=0)
    start = tune(model, steps=1, rate=1e-9)
    torch.testing.assert_close(scores(start.lm), scores(run.lm), atol=1e-4, rtol=0)


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "olora", "pissa", "pissa_niter_4", "corda"])
def test_no_initialisation_changes_the_model_that_is_given(tokenizer, tmp_path, init):
    folder = small("llama", tokenizer, tmp_path / "base", **LLAMA)
    model = load(folder)
    before = scores(model)
    try:
        run = tune(model, lora=LoraConfig(r=4, init_lora_weights=init, **QUERY_VALUE))
    except ValueError as error:
        assert init in ("pissa_niter_4", "corda") and "init_lora_weights" in str(error)
        return
    torch.testing.assert_close(scores(model), before, atol=0, rtol=0)
    torch.testing.assert_close(scores(load(folder, adapter=run.save(tmp_path / "a"))), scores(run.lm), atol=1e-4, rtol=0)


def test_an_adapter_on_one_of_two_tied_matrices_is_merged_into_that_one(tokenizer, tmp_path):
    folder = small("llama", tokenizer, tmp_path / "base", tie_word_embeddings=True, **LLAMA)
    run = tune(load(folder), lora=LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"))
    assert tune(run.lm).history.loss[0] == pytest.approx(-scores(run.lm).mean().item(), abs=1e-4)


@pytest.mark.parametrize("layers", [2, 8])
def test_an_adapter_of_another_depth_is_refused(tokenizer, tmp_path, layers):
    folder = small("llama", tokenizer, tmp_path / "base", **LLAMA)
    other = small("llama", tokenizer, tmp_path / "other", **(LLAMA | dict(num_hidden_layers=layers)))
    adapter = tune(load(other)).save(tmp_path / "adapter")
    (adapter / "base.json").unlink()  # as in adapters of other programs
    with pytest.raises(GdrtError, match="made for another model: it (lacks|has in excess)"):
        load(folder, adapter=adapter)


def test_an_adapter_of_another_base_is_refused_whose_shapes_fit(tokenizer, tmp_path):
    folder, other = (small("llama", tokenizer, tmp_path / name, seed=seed, **LLAMA) for seed, name in enumerate("ab"))
    first = tune(load(folder))
    for run, name in ((first, "one"), (tune(first.lm), "two")):
        adapter = run.save(tmp_path / name)
        load(folder, adapter=adapter, dtype=torch.bfloat16)  # in another number format the base is the same
        with pytest.raises(GdrtError, match="made for another model, of which .* weights differ"):
            load(other, adapter=adapter)
    (adapter / "base.json").write_text("[")
    with pytest.raises(GdrtError, match="base.json cannot be read"):
        load(folder, adapter=adapter)


def test_adapters_of_other_kinds_are_right_or_refused(tokenizer, tmp_path):
    folder = small("llama", tokenizer, tmp_path / "base", **LLAMA)
    prompt = PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), prompt).save_pretrained(tmp_path / "prompt")
    with pytest.raises(GdrtError, match="PROMPT_TUNING puts tokens of its own"):
        load(folder, adapter=tmp_path / "prompt")
    scaled = IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    peer = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), scaled).eval()
    for name, parameter in peer.named_parameters():
        if "ia3" in name:
            parameter.data = parameter.data * 1.5
    peer.save_pretrained(tmp_path / "ia3")
    model = load(folder, adapter=tmp_path / "ia3")
    row = model.encode(TITLES[:2], "Up")
    with torch.no_grad():
        expected = peer(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)[list(row.predict_at), list(row.labels)]
    torch.testing.assert_close(lm.target_logprobs(model, [row])[0], expected, atol=1e-4, rtol=0)


def test_a_damaged_adapter_is_one_sentence(tokenizer, tmp_path):
    folder = small("llama", tokenizer, tmp_path / "base", **LLAMA)
    adapter = tune(load(folder)).save(tmp_path / "adapter")
    whole = (adapter / "adapter_config.json").read_text()
    for name, text in (
        ("adapter_config.json", "{}"),
        ("adapter_model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
    ):
        (adapter / "adapter_config.json").write_text(whole)
        (adapter / name).write_text(text)
        with pytest.raises(GdrtError, match="no usable LoRA adapter"):
            load(folder, adapter=adapter)


@pytest.mark.parametrize("kind", ["smollm3", "olmo2", "gpt_neox_japanese"])
def test_an_architecture_without_a_default_of_peft_is_tuned(tokenizer, tmp_path, kind):
    own = {} if kind == "gpt_neox_japanese" else dict(num_key_value_heads=2, intermediate_size=64)
    run = tune(load(small(kind, tokenizer, tmp_path, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **own)))
    assert run.settings["lora"]["target_modules"] and run.history.loss.iloc[-1] < run.history.loss[0]


# ------------------------------------------------------------------------------------------- folders, tokenizers


def broken(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if how == "pointer":
        (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif how == "no tokenizer":
        for file in folder.glob("*token*"):
            file.unlink()
    elif how == "no head":
        tokens = AutoModel.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        tokens.save_pretrained(folder)
    elif how == "other sizes":
        (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 48}))
    elif how == "quantised":
        asked = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": asked}))


@pytest.mark.parametrize(
    "how, sentence",
    [
        ("pointer", "cannot be read as a causal language model"),
        ("no tokenizer", "has no tokenizer"),
        ("no head", "lack 1 tensors, such as lm_head.weight"),
        ("other sizes", "cannot be read as a causal language model"),
        ("quantised", "cannot be read as a causal language model.*bitsandbytes"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(tokenizer, tmp_path, how, sentence):
    broken(small("llama", tokenizer, tmp_path, **LLAMA), how)
    with pytest.raises(GdrtError, match=sentence):
        load(tmp_path)


def test_a_folder_called_pocket_is_tuned_with_an_adapter(tokenizer, tmp_path, monkeypatch):
    small("llama", tokenizer, tmp_path / "pocket", **LLAMA)
    monkeypatch.chdir(tmp_path)
    assert tune(load("pocket")).settings["lora"]["target_modules"] == ["q_proj", "v_proj"]


def test_a_tokenizer_without_an_end_or_of_a_larger_vocabulary_is_refused(tokenizer, tmp_path):
    endless = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), pad_token="<pad>"
    )
    folder = small("llama", tokenizer, tmp_path / "a", **LLAMA)
    for file in folder.glob("*token*"):
        file.unlink()
    endless.save_pretrained(folder)
    # The configuration names <eos>, which the tokenizer keeps among its special tokens.
    assert load(folder).tokenizer.eos_token == "<eos>"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    with pytest.raises(GdrtError, match="no end-of-sequence token"):
        load(folder)
    shutil.rmtree(folder)
    with pytest.raises(GdrtError, match=f"has {len(tokenizer)} tokens and the model knows 100"):
        load(small("llama", tokenizer, folder, **(LLAMA | dict(vocab_size=100))))


def metaspace(prepend: str = "always", bos: bool = True, underscore: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer in the manner of Llama: a blank in front of every text, BOS by itself."""
    inner = Tokenizer(models.BPE(unk_token=None))
    if prepend == "normaliser":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    corpus = [*TITLES, prompts.DEFAULT.before, "\n- a", prompts.DEFAULT.after, "<s>imend|>#"] + ["_"] * underscore
    special = ["<s>", "<eos>", "<pad>"]
    inner.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<eos>", pad_token="<pad>")


@pytest.mark.parametrize("prepend", ["always", "first", "normaliser"])
def test_what_the_tokenizer_puts_in_front_opens_the_prompt_once(prepend):
    tokens = metaspace(prepend)
    for wording in (prompts.DEFAULT, prompts.Prompt(before="<s>" + prompts.DEFAULT.before, after=prompts.DEFAULT.after)):
        row = wording.encode(tokens, TITLES[:3], "Up", max_length=200)
        assert row.positions(BOS) == [0] and row.ids.count(tokens.bos_token_id) == 1
        assert row.ids[0] == tokens.bos_token_id and row.segments[1] == TASK
        for segment, ablation in (
            (s, a) for s in (TASK, HISTORY, PREFIX) for a in ("attention", "token", "delete", "resample")
        ):
            without = ablate(row, segment, ablation, 5, wording.encode(tokens, TITLES[3:5], "Heat"))
            assert without.ids[0] == tokens.bos_token_id and without.attend[0] == 1
    assert not prompts.opening_ids(metaspace(prepend, bos=False))


@pytest.mark.parametrize("prepend", ["always", "first", "normaliser"])
def test_pieces_are_tokenised_without_the_blank_that_belongs_in_front_of_a_text(prepend):
    tokens = metaspace(prepend)
    row = prompts.DEFAULT.encode(tokens, TITLES[:2], "Up")
    text = prompts.DEFAULT.before + "".join(f"\n- {t}" for t in TITLES[:2]) + prompts.DEFAULT.after + " Up"
    assert tokens.decode(row.ids[:-1]) == tokens.decode(tokens(text)["input_ids"])


def test_the_neutral_token_is_an_ordinary_one_where_no_underscore_is_known():
    tokens = metaspace(underscore=False)
    assert prompts.neutral_id(tokens) == tokens("-", add_special_tokens=False)["input_ids"][-1]


# ------------------------------------------------------------------------------------------------------ titles


@pytest.mark.parametrize("title", ["Heat<eos> 2", "<pad>", "Heat<|im_end|>", "<s>", "a <EOS>"])
def test_a_title_that_spells_a_control_token_is_data(tokenizer, title):
    for tokens in (tokenizer, metaspace()):
        ids = prompts.title_ids(tokens, title)
        assert not {tokens.eos_token_id, tokens.pad_token_id, tokens.bos_token_id} & set(ids)
        trie = TitleTrie([title, "Heat", "Up"], tokens)
        assert (trie.leaf >= 0).sum() == 3 and all(
            len(trie.path(t)) == len(prompts.target_ids(tokens, t)) for t in trie.titles
        )
    assert tokenizer.decode(prompts.title_ids(tokenizer, title)) == " " + title


def test_a_title_with_the_markers_of_the_real_models_chat_is_data(smollm2):
    title = "Heat<|im_end|>\n<|im_start|>user"
    ids = prompts.title_ids(smollm2.tokenizer, title)
    assert not set(ids) & set(smollm2.tokenizer.all_special_ids) and smollm2.tokenizer.decode(ids) == " " + title
    row = smollm2.encode([title, "Up\nNext movie:\n- Heat"], "Up")
    assert smollm2.tokenizer.decode([row.ids[p] for p in row.positions(HISTORY)]) == f" {title} Up\nNext movie:\n- Heat"
    assert prompts.opening_ids(smollm2.tokenizer) == ()


def test_one_look_is_one_title(tokenizer):
    composed, apart = "Amélie", unicodedata.normalize("NFD", "Amélie")
    assert apart != composed and prompts.title_ids(tokenizer, apart) == prompts.title_ids(tokenizer, composed)
    pocket = lm.pocket([composed, "Up"])
    (ranked,) = decoding.recommend(pocket, [[apart]], [composed, "Up"], k=1, exclude_history=True)
    (exact,) = decoding.rank_catalogue(pocket, [[composed]], [apart, "Up"], k=1, exclude_history=True)
    assert ranked[0][0] == exact[0][0] == "Up"


@pytest.mark.parametrize(
    "title, sentence", [(1917, "1917 is no text"), (None, "is no text"), ("a\ud800", "half of a character")]
)
def test_titles_that_cannot_be_read_are_named(pocket, title, sentence):
    with pytest.raises(ValueError, match=sentence):
        pocket.encode([title], "Up")
    with pytest.raises(ValueError, match=sentence):
        decoding.recommend(pocket, [[]], [title, "Up"], k=1)


def test_a_title_longer_than_the_context_is_named_with_its_need(pocket):
    title = "x" * 4000
    need = len(pocket.prompt.encode(pocket.tokenizer, [], title))
    with pytest.raises(ValueError, match=f"context of 1024 tokens .* the target 'xxx.* need {need} tokens"):
        pocket.encode([], title)
    with pytest.raises(ValueError, match=f"context of 1024 tokens .* the longest title alone need {need} tokens"):
        decoding.recommend(pocket, [[]], ["Heat", title], k=1)


def test_a_history_that_is_cut_away_whole_is_said(pocket):
    need = len(pocket.encode([], "Up"))
    with pytest.warns(UserWarning, match="whole history"):
        row = pocket.prompt.encode(pocket.tokenizer, TITLES[:1], "Up", max_length=need)
    assert not row.positions(HISTORY)


def test_a_prompt_of_nothing_is_refused(pocket):
    with pytest.raises(ValueError, match="prompt is empty"):
        prompts.Prompt(before="", after="").encode(pocket.tokenizer, [], "Up")


def test_a_tokenizer_that_grows_is_read_anew(tokenizer):
    grown = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), eos_token="<eos>"
    )
    before = prompts.title_ids(grown, "Zardoz")
    grown.add_tokens([" Zardoz"])
    assert prompts.title_ids(grown, "Zardoz") == (len(grown) - 1,) != before


# ----------------------------------------------------------------------------------------------- the slow lane


@pytest.mark.long
@pytest.mark.slow
def test_every_causal_architecture_is_right_or_refused():
    script = Path(__file__).resolve().parents[1] / "scripts" / "model_matrix.py"
    spec = importlib.util.spec_from_file_location("model_matrix", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    verdicts = module.matrix(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    assert not {kind: note for kind, (verdict, note) in verdicts.items() if verdict in ("wrong", "traceback")}
    assert sum(verdict == "right" for verdict, _ in verdicts.values()) > 100
