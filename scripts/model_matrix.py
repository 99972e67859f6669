"""Try every causal architecture of transformers, small and with random weights, and write docs/models.md.

    python scripts/model_matrix.py [--log FILE]               all, and the page
    python scripts/model_matrix.py [--log FILE] llama mpt     these two, to the screen

FILE keeps the verdicts, one JSON line each; what it holds already is not tried again.

The reference is transformers' own eager forward of one prompt. "right" agrees with it in every check, and "refused" ends
in a sentence.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from gdrt_lite import attribution, decoding, lm, relevance, training
from gdrt_lite.ablation import FEATURES, ablate
from gdrt_lite.data import Example
from gdrt_lite.lm import LanguageModel
from gdrt_lite.prompts import SEGMENT_NAMES, Encoded
from gdrt_lite.system.errors import GdrtError

TITLES = ("Toy Story (1995)", "Heat (1995)", "Alien (1979)", "Aliens (1986)", "Jumanji (1995)", "Heat", "Heat 2", "Up")
EXAMPLES = [Example("a", TITLES[:3], "Aliens (1986)", 0), Example("b", TITLES[3:8], "Heat 2", 1)]
SECONDS, MOST_PARAMETERS, TOLERANCE = 150, 20e6, 1e-3
WINDOW = 24  # of sliding windows: shorter than the prompts

# Sizes by the names that configurations give them. A name that a configuration does not have is left out.
WIDTH = (
    "hidden_size",
    "d_model",
    "n_embd",
    "dim",
    "embedding_size",
    "word_embed_proj_dim",
    "lru_width",
    "attention_hidden_size",
)
INNER = ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "d_inner", "moe_intermediate_size",
         "ffn_hidden_size",
         "intermediate_size_mlp", "shared_expert_intermediate_size", "expert_ffn_hidden_size", "dense_intermediate_size",
         "shared_intermediate_size", "mlp_hidden_size", "dff", "n_inner", "moe_shared_expert_intermediate_size",
         "feed_forward_size",
         "prefix_dense_intermediate_size", "mlp_intermediate_size", "hidden_dim", "dim_ff", "block_ff_dim")  # fmt: skip
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "num_decoder_layers",
          "num_encoder_layers")  # fmt: skip
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads",
         "num_decoder_attention_heads", "num_encoder_attention_heads", "linear_num_value_heads", "mamba_n_heads",
         "lightning_nh")  # fmt: skip
GROUPS = ("num_key_value_heads", "linear_num_key_heads", "num_kv_heads")
HEAD_WIDTH = ("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "attention_head_dim", "kv_channels", "global_head_dim",
              "rotary_dim",
              "linear_key_head_dim", "linear_value_head_dim", "mamba_head_dim", "mamba_d_head", "dim_head", "swa_head_dim",
              "d_kv",
              "index_head_dim", "attention_head_size")  # fmt: skip
RANKS = ("q_lora_rank", "kv_lora_rank", "mamba_dt_rank", "time_step_rank", "o_lora_rank", "hidden_size_per_layer_input",
         "mamba_d_state", "state_size", "ssm_state_size")  # fmt: skip
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "n_experts")
WINDOWS = ("sliding_window", "window_size", "local_attention", "attention_chunk_size", "attention_window_size")
SIZES: dict[str, Any] = (
    dict.fromkeys(WIDTH, 32) | dict.fromkeys(INNER, 64) | dict.fromkeys(LAYERS, 4) | dict.fromkeys(HEADS, 4)
    | dict.fromkeys(GROUPS, 2) | dict.fromkeys(HEAD_WIDTH, 8) | dict.fromkeys(RANKS, 8) | dict.fromkeys(EXPERTS, 4)
    | dict.fromkeys(WINDOWS, WINDOW) | {"num_experts_per_tok": 2, "moe_top_k": 2, "v_head_dim": 4,
                                        "query_pre_attn_scalar": 8}
    | {"max_position_embeddings": 512, "n_positions": 512, "vocab_size_per_layer_input": 352, "n_group": 1, "topk_group": 1}
)  # fmt: skip
HYBRID = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_expand": 2, "mamba_d_ssm": 64}
OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "bamba": HYBRID | {"attn_layer_indices": [1, 3]},
    "falcon_h1": HYBRID,
    "granitemoehybrid": HYBRID | {"layer_types": ["mamba", "attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16},
    "qwen4_exp_text": {"n_group": None, "topk_group": None},
    "reformer": {"axial_pos_shape": [16, 32], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"] * 2},
    "xmod": {"default_language": "en_XX"},
    "zamba2": HYBRID
    | {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "adapter_rank": 8,
    },
    "dots1": {"moe_intermediate_size": 32, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 2},
}


def small(kind: str, pocket: LanguageModel, folder: Path, **own: Any) -> Path:
    """A folder with a tiny model of an architecture, its random weights, and the pocket model's tokenizer."""
    tokens = pocket.tokenizer
    wanted = dict(SIZES)
    default = AutoConfig.for_model(kind)
    if default.sub_configs.keys() - {"attn_config", "ffn_config"}:
        raise NotImplementedError("a model of several parts")
    names = {*default.to_dict(), *getattr(default, "attribute_map", {})}
    wanted |= {
        name: 0.0 for name in names if re.search("drop|jitter", name) and isinstance(getattr(default, name, 0), float)
    }
    wanted |= {"num_key_value_heads": 4} if "kv_lora_rank" in names else {}  # latent attention has no groups
    ids = dict(vocab_size=352, eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id)
    ids["bos_token_id"] = None if getattr(default, "bos_token_id", None) is None else tokens.eos_token_id
    if getattr(default, "is_decoder", None) is False:  # an encoder that can be a decoder as well
        wanted["is_decoder"] = True
        names.add("is_decoder")
    wanted |= ids | OWN.get(kind, {}) | own
    config = AutoConfig.for_model(
        kind, **{k: v for k, v in wanted.items() if k in names or k in ids or k in OWN.get(kind, {})}
    )
    with torch.device("meta"):  # counted before any memory is taken
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        raise NotImplementedError(f"{size / 1e6:.0f}M parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # far enough from 0 that what is ignored shows
        if parameter.is_floating_point():
            parameter.data = torch.randn(parameter.shape) * 0.2 + (parameter.dim() == 1)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def plain(model: torch.nn.Module, row: Encoded) -> torch.Tensor:
    """The labels' log-probabilities by one forward pass; an ablated prompt is given as its 0/1 mask and true positions."""
    more = (
        {} if all(row.attend) else dict(attention_mask=torch.tensor([row.attend]), position_ids=torch.arange(len(row))[None])
    )
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([row.ids]), use_cache=False, **more).logits[0].log_softmax(-1)
    return scores[list(row.predict_at), list(row.labels)]


class Wrong(AssertionError):
    """A number differs from the reference."""


def same(what: str, got: torch.Tensor | float, expected: torch.Tensor | float, scale: float = 1.0) -> None:
    """Raise `Wrong` where two results differ."""
    off = (torch.as_tensor(got).float() - torch.as_tensor(expected).float()).abs().max().item()
    if not off < TOLERANCE * scale:
        raise Wrong(f"{what} off by {off:.2g}")


def check_scores(model: LanguageModel, reference: torch.nn.Module) -> None:
    """Mixed prompts in one batch and alone, and token relevance."""
    rows = [model.encode(TITLES[:n], target) for n in (0, 2, 5) for target in ("Heat", "Heat 2")]
    for batch in (4096, 1):
        for row, got in zip(rows, lm.target_logprobs(model, rows, batch_tokens=batch), strict=True):
            same("logprobs", got, plain(reference, row))
    for title, got in relevance.token_relevance(model, TITLES).items():
        same("relevance", got, plain(reference, model.encode((), title)))


def check_ablation(model: LanguageModel, reference: torch.nn.Module, ablation: str) -> None:
    """Feature ablation against the difference of two plain forward passes."""
    frame = attribution.feature_ablation(model, EXAMPLES, ablation)
    rows = [model.encode(e.history, e.target) for e in EXAMPLES]
    for i, row in enumerate(rows):
        for segment in FEATURES:
            without = ablate(row, segment, ablation, attribution.neutral_id(model), rows[1 - i])
            expected = plain(reference, row) - plain(reference, without)
            got = frame[(frame.example == i) & (frame.segment == SEGMENT_NAMES[segment])].attribution.to_numpy()
            skip = int(segment == FEATURES[-1])  # there is no PREFIX before the first token
            same(f"{ablation} of {SEGMENT_NAMES[segment]}", torch.tensor(got)[skip:], expected[skip:], 2)


def check_lists(model: LanguageModel, reference: torch.nn.Module, beams: bool) -> None:
    """Titles ranked in full, by beams as many as titles or by `score_catalogue`."""
    expected = {title: plain(reference, model.encode(TITLES[:2], title)).sum() for title in TITLES}
    if beams:
        (ranked,) = decoding.recommend(model, [TITLES[:2]], TITLES, k=len(TITLES), beams=len(TITLES))
    else:
        ranked = decoding.score_catalogue(model, TITLES[:2], TITLES)
    if len(ranked) < len(TITLES):
        raise Wrong(f"{len(ranked)} of {len(TITLES)} titles listed")
    for title, score in ranked:
        same("recommend" if beams else "score_catalogue", score, expected[title], 5)


def check_training(model: LanguageModel, folder: Path) -> None:
    """Two trainings one after the other leave the model as it is, and what is saved is what was trained."""
    rows = [model.encode(e.history, e.target) for e in EXAMPLES]

    def scores(of: LanguageModel) -> torch.Tensor:
        return torch.cat(lm.target_logprobs(of, rows))

    def tune(start: LanguageModel, rate: float) -> training.TuningResult:
        args = training.arguments(start, max_steps=1, batch_size=2, learning_rate=rate)
        return training.finetune(start, EXAMPLES, "sft", args, progress=False)

    before = scores(model)
    one = tune(model, 1e-2)
    same("first loss", one.history.loss[0], -before.mean())
    same("the model that was tuned", scores(model), before)
    if (scores(one.lm) - before).abs().max() < TOLERANCE:
        raise Wrong("training changed nothing")
    two = tune(one.lm, 1e-2)
    same("loss after merging", two.history.loss[0], -scores(one.lm).mean())
    again = lm.load(model.name, adapter=two.save(folder / "adapter"), dtype=torch.float32, device="cpu")
    same("saved and loaded", scores(again), scores(two.lm))


def check(kind: str, pocket: LanguageModel, folder: Path) -> tuple[str, str]:
    """The verdict on an architecture (right, refused, wrong, traceback, not built) and what led to it."""
    try:
        small(kind, pocket, folder / "model")
    except Exception as error:
        return "not built", _sentence(error)
    try:
        model = lm.load(folder / "model", dtype=torch.float32, device="cpu")
    except (GdrtError, ValueError) as error:
        return "refused", _sentence(error)
    except Exception as error:
        return "traceback", _sentence(error)
    reference = AutoModelForCausalLM.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    parts = {"scores": lambda: check_scores(model, reference)}
    parts |= {f"ablation {a}": lambda a=a: check_ablation(model, reference, a) for a in ("attention", "token", "delete")}
    parts |= {
        name: lambda name=name: check_lists(model, reference, name == "recommend") for name in ("ranking", "recommend")
    }
    parts["training"] = lambda: check_training(model, folder)
    found: dict[str, list[str]] = {"traceback": [], "wrong": [], "without": []}
    for part, run in parts.items():
        try:
            run()
        except Wrong as error:
            found["wrong"].append(str(error))
        except (GdrtError, ValueError):
            found["without"].append(part)
        except Exception as error:
            found["traceback"].append(f"{part}: {_sentence(error)}")
    how = {0: "each prompt alone"}.get(
        model.packed, "together" if model.packed > 1 << 20 else f"together up to {model.packed} tokens"
    )
    verdict = next((name for name in ("traceback", "wrong") if found[name]), "right")
    notes = [how, *found["traceback"], *found["wrong"], *(f"refuses {part}" for part in found["without"])]
    return verdict, "; ".join(notes)


def _sentence(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0].split("'/")
    return f"{type(error).__name__}: {text[0] + (' ...' + text[1].partition(chr(39))[2] if len(text) > 1 else '')}"[
        :180
    ].replace("|", "/")


class OutOfTime(BaseException):
    """An architecture takes too long. No Exception, which the package would turn into a refusal."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise OutOfTime in the block after so many seconds."""

    def stop(*_: Any) -> None:
        raise OutOfTime(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def matrix(kinds: list[str], log: Path | None = None) -> dict[str, tuple[str, str]]:
    """The verdict on each architecture; those that `log` holds are read from it, the others written to it."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    lines = log.read_text(encoding="utf-8").splitlines() if log and log.exists() else []
    known = {kind: (verdict, note) for kind, verdict, note in map(json.loads, lines)}
    pocket, verdicts = lm.pocket(TITLES), {}
    for kind in kinds:
        if kind in known:
            verdicts[kind] = known[kind]
            continue
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            try:
                with at_most(SECONDS):
                    verdicts[kind] = check(kind, pocket, Path(folder))
            except OutOfTime as error:
                verdicts[kind] = "not built", str(error)
        print(f"{kind:28} {time.time() - start:5.1f} s  {verdicts[kind][0]:10} {verdicts[kind][1]}", flush=True)
        if log:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps([kind, *verdicts[kind]]) + "\n")
    return verdicts


PAGE = """# Which models are read right

`python scripts/model_matrix.py` builds every causal architecture of transformers {version} that it can build small, with
random weights and windows of {window} tokens. It compares this package with transformers' own eager forward of one prompt:
scores in batches and alone, three ablations, token relevance, rankings, and two trainings with LoRA one after the other.

{counts}.

"together" prompts share a batch; "each prompt alone" is slower and just as right. What is refused ends in one sentence,
and "refuses" names the part that does so in a model that is right in all others.
An architecture is "not built" where the script has no small configuration for it, which says nothing about the model.

{table}
"""


def main() -> None:
    """Write the page, or print the verdicts on the kinds that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="keeps the verdicts")
    parser.add_argument("kinds", nargs="*")
    args = parser.parse_args()
    verdicts = matrix(args.kinds or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), args.log)
    count = Counter(verdict for verdict, _ in verdicts.values())
    counts = ", ".join(f"{count[name]} {name}" for name in ("right", "refused", "wrong", "traceback", "not built"))
    print(counts)
    if not args.kinds:
        rows = ["| architecture | verdict | how |", "|---|---|---|"]
        rows += [f"| {kind} | {verdict} | {note} |" for kind, (verdict, note) in verdicts.items()]
        table = PAGE.format(version=transformers.__version__, window=WINDOW, counts=counts, table="\n".join(rows))
        (Path(__file__).resolve().parents[1] / "docs" / "models.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
