"""The tokenizer files of a Gemma vocabulary."""

from pathlib import Path

from titlegen.families.gemma3 import PROMPT, TOKENS
from titlegen.files import write_atomically
from titlegen.models.read import write_json
from titlegen.prompt import PromptFormat

# Source: gguf.TokenType and sentencepiece's ModelProto.SentencePiece.Type.
_GGUF_CONTROL, _GGUF_USER_DEFINED, _GGUF_BYTE = 3, 4, 6
_SPM_NORMAL, _SPM_UNKNOWN, _SPM_CONTROL, _SPM_USER_DEFINED, _SPM_BYTE = 1, 2, 3, 4, 6


def write_tokenizer(
    directory: Path, tokens: list[str], scores: list[float], types: list[int], prompt: PromptFormat = PROMPT
) -> None:
    """Write tokenizer.json, tokenizer.model, tokenizer_config.json and the chat template of a Gemma vocabulary.

    transformers' own conversion from GGUF yields other ids than llama.cpp ("model" becomes two tokens), so the
    merges are rebuilt here from the scores, as sentencepiece applies them.
    """
    _write_tokenizer_json(directory / "tokenizer.json", tokens, scores, types)
    _write_sentencepiece(directory / "tokenizer.model", tokens, scores, types)
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "GemmaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": tokens[TOKENS.bos],
            "eos_token": tokens[TOKENS.eos],
            "pad_token": tokens[TOKENS.pad],
            "unk_token": tokens[TOKENS.unk],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 32768,
        },
    )
    write_atomically(directory / "chat_template.jinja", prompt.chat_template)


def _write_tokenizer_json(path: Path, tokens: list[str], scores: list[float], types: list[int]) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocab = {token: index for index, token in enumerate(tokens)}
    plain = {
        token for token, kind in zip(tokens, types, strict=True) if kind not in {_GGUF_CONTROL, _GGUF_USER_DEFINED}
    }
    merges = [
        (-scores[index], token[:cut], token[cut:])
        for index, token in enumerate(tokens)
        if token in plain and types[index] != _GGUF_BYTE
        for cut in range(1, len(token))
        if token[:cut] in plain and token[cut:] in plain
    ]
    # sentencepiece joins the pair with the best score first; the sort is stable, so shorter left parts come first.
    merges.sort(key=lambda merge: merge[0])
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(left, right) for _, left, right in merges],
            unk_token=tokens[TOKENS.unk],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokens[TOKENS.bos]} $A", special_tokens=[(tokens[TOKENS.bos], TOKENS.bos)]
    )
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _GGUF_CONTROL]
    defined = [token for token, kind in zip(tokens, types, strict=True) if kind == _GGUF_USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in defined])
    tokenizer.save(str(path), pretty=False)


def _write_sentencepiece(path: Path, tokens: list[str], scores: list[float], types: list[int]) -> None:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = trainer.BPE
    trainer.vocab_size = len(tokens)
    trainer.byte_fallback = True
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = TOKENS.pad, TOKENS.eos, TOKENS.bos, TOKENS.unk
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = (
        tokens[TOKENS.pad],
        tokens[TOKENS.eos],
        tokens[TOKENS.bos],
        tokens[TOKENS.unk],
    )
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = False
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    for index, (token, score, kind) in enumerate(zip(tokens, scores, types, strict=True)):
        # Pieces hold U+2581 for a space, also the runs of spaces that GGUF lists as user-defined tokens.
        piece = model.pieces.add(piece=token.replace(" ", "▁"), score=score)
        if index == TOKENS.unk:
            piece.type = _SPM_UNKNOWN
        elif index in {TOKENS.pad, TOKENS.eos, TOKENS.bos}:
            piece.type = _SPM_CONTROL
        elif kind in {_GGUF_CONTROL, _GGUF_USER_DEFINED}:
            piece.type = _SPM_USER_DEFINED
        else:
            piece.type = _SPM_BYTE if kind == _GGUF_BYTE else _SPM_NORMAL
    path.write_bytes(model.SerializeToString())
