"""timm's plain transformer blocks, computed so that a step takes less time.

On a GPU a ViT-B's step had more time in moving vectors than in multiplying them (benchmarks/notes.md).
So under autocast the tokens keep its format from block to block, and the norms take and give it, their
statistics in float32, instead of going to float32 and back around each.
"""

import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torch.nn import functional


def forward_block(block: nn.Module, tokens: Tensor) -> Tensor:
    """Return what a plain timm block makes of the tokens, B L D."""
    block, attention = _plain(block)
    # Gradients of chunks are joined with one copy; those of timm's permutation need another.
    queries, keys, values = attention.qkv(normalize(block.norm1, tokens)).chunk(3, dim=2)
    return _finish(block, tokens, _attend(attention, queries, keys, values))


def forward_last(block: nn.Module, tokens: Tensor, count: int) -> Tensor:
    """Return what a plain timm block makes of the last `count` tokens, B L D; they attend to all.

    The others give keys and values alone: their queries, projections and MLP are saved.
    """
    block, attention = _plain(block)
    normed = normalize(block.norm1, tokens)
    width = tokens.shape[2]
    query_weight, weight = attention.qkv.weight.tensor_split([width])
    query_bias, bias = attention.qkv.bias.tensor_split([width])
    queries = functional.linear(normed[:, -count:], query_weight, query_bias)
    keys, values = functional.linear(normed, weight, bias).chunk(2, dim=2)
    return _finish(block, tokens[:, -count:], _attend(attention, queries, keys, values))


def normalize(norm: nn.Module, tokens: Tensor) -> Tensor:
    """Return the tokens normalised; under autocast in its format, also the norm's own parameters."""
    assert isinstance(norm, nn.LayerNorm)
    device = tokens.device.type
    mixed = torch.is_autocast_enabled(device)
    form = torch.get_autocast_dtype(device) if mixed else tokens.dtype
    tokens, weight, bias = (part.to(form) for part in (tokens, norm.weight, norm.bias))
    with torch.autocast(device, enabled=False):
        return functional.layer_norm(tokens, norm.normalized_shape, weight, bias, norm.eps)


def _plain(block: nn.Module) -> tuple[Block, Attention]:
    assert isinstance(block, Block)
    assert isinstance(block.attn, Attention)
    extras = (block.ls1, block.ls2, block.attn.q_norm, block.attn.k_norm)
    assert all(isinstance(part, nn.Identity) for part in extras)
    return block, block.attn


def _attend(attention: Attention, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the attention's projected output for queries, B K D, to keys and values, B L D."""
    heads = (
        part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)  # B H L D/H
        for part in (queries, keys, values)
    )
    attended = _dot_product_attention(*heads)
    return attention.proj(attended.transpose(1, 2).flatten(2))


def _dot_product_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the attention of queries, B H K d, to keys and values, B H L d: B H K d.

    On a CPU PyTorch's backward pass is several times as long in bf16 as in float32.
    """
    if queries.device.type != "cpu" or queries.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(queries, keys, values)
    exact = queries.float(), keys.float(), values.float()
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(*exact).to(queries.dtype)


def _finish(block: Block, tokens: Tensor, attended: Tensor) -> Tensor:
    """Return the block's output, from its input and what the attention adds to it."""
    tokens = tokens + attended
    return tokens + block.mlp(normalize(block.norm2, tokens))
