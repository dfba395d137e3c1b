"""diffusers and sentence-transformers: folders with weights in sub-folders."""

from __future__ import annotations

import tempfile
from pathlib import Path

import diffusers
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from input_makers.case import fresh, says, tune


def parts(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of all safetensors files of a folder, called by their sub-folder's path."""
    found = {}
    for path in sorted(folder.rglob("*.safetensors")):
        prefix = "" if path.parent == folder else f"{path.parent.relative_to(folder).as_posix()}/"
        found |= {prefix + name: tensor for name, tensor in load_file(path).items()}
    return found


def denoiser() -> diffusers.UNet2DConditionModel:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=4, in_channels=2, out_channels=2, block_out_channels=(4,), layers_per_block=1, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("UpBlock2D",), mid_block_type=None,
        cross_attention_dim=4, attention_head_dim=4,
    )  # fmt: skip


def pipeline(unet: diffusers.UNet2DConditionModel) -> diffusers.StableDiffusionPipeline:
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=2, block_out_channels=(4,), norm_num_groups=2, sample_size=8,
    )  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=20, hidden_size=4, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8,
    ))  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=None, unet=unet, scheduler=diffusers.DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def diffusion() -> None:
    whole = fresh("diffusers", "diffusers", "transformers", "safetensors", "torch")
    part = fresh("diffusers-part", "diffusers", "safetensors", "torch")
    variant = fresh("diffusers-variant", "diffusers", "transformers", "safetensors", "torch")
    for side in ("base", "tuned"):
        unet = denoiser()
        pipe = pipeline(unet)
        if side == "tuned":
            tune(unet)
            tune(pipe.text_encoder)
        pipe.save_pretrained(whole / side)
        unet.save_pretrained(part / side, max_shard_size="5KB")
        pipe.to(torch.float16).save_pretrained(variant / side, variant="fp16", max_shard_size="5KB")
    for folder in (whole, part, variant):
        says(folder, base=parts(folder / "base"), tuned=parts(folder / "tuned"))


def sentences() -> None:
    folder = fresh("sentence-transformers", "sentence-transformers", "transformers", "safetensors", "torch")
    words = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    raw = tempfile.mkdtemp()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(raw)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                         max_position_embeddings=16)).save_pretrained(raw)  # fmt: skip
    for side in ("base", "tuned"):
        torch.manual_seed(1)
        body = Transformer(raw, max_seq_length=16)
        whole = SentenceTransformer(modules=[body, Pooling(8, pooling_mode="mean"), Dense(8, 4)], device="cpu")
        if side == "tuned":
            tune(whole)
        whole.save_pretrained(str(folder / side), create_model_card=False)
    says(folder, base=parts(folder / "base"), tuned=parts(folder / "tuned"))


def main() -> None:
    diffusion()
    sentences()


if __name__ == "__main__":
    main()
