"""The masked autoencoder around a timm Vision Transformer (arXiv 2111.06377)."""

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from dbp_mae.encoder import EncoderSpec, Normalize, create_encoder, sincos_positions
from dbp_mae.params import PretrainParams
from dbp_mae.pretraining.blocks import forward_block, forward_last, normalize
from dbp_mae.pretraining.decoder_heads import HEAD_WIDTH


class MaskedAutoencoder(nn.Module):
    """Reconstructs the masked patches of an image from the visible ones.

    The loss is the mean squared error on the masked patches, each target patch normalised by its own
    mean and variance.
    """

    decoder_positions: Tensor

    def __init__(self, spec: EncoderSpec, params: PretrainParams) -> None:
        super().__init__()
        self.patch = spec.patch
        self.mask_ratio = params.mask_ratio
        self.normalize = Normalize(spec)
        self.encoder: VisionTransformer = create_encoder(spec)
        width, grid = self.encoder.embed_dim, spec.image_size // spec.patch
        self.encoder.pos_embed = nn.Parameter(sincos_positions(width, grid), requires_grad=False)

        dim = params.decoder_dim
        self.decoder_embed = nn.Linear(width, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("decoder_positions", sincos_positions(dim, grid), persistent=False)
        heads = dim // HEAD_WIDTH
        self.decoder_blocks = nn.Sequential(
            *(Block(dim, heads, qkv_bias=True) for _ in range(params.decoder_depth))
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder_pred = nn.Linear(dim, spec.patch**2 * spec.channels)

        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Initialise as the paper does: Xavier-uniform linear layers, tokens from a normal of 0.02."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        projection = self.encoder.patch_embed.proj.weight
        nn.init.xavier_uniform_(projection.view(projection.shape[0], -1))
        for token in (self.encoder.cls_token, self.mask_token):
            assert token is not None
            nn.init.normal_(token, std=0.02)

    def forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Return the loss of raw crops, uint8, B C H W; `noise`, B N, decides which patches stay."""
        patches = self.patchify(self.normalize(pixels))
        visible, masked = self.random_masking(noise)
        latent = self.forward_encoder(select(patches, visible), visible)
        prediction = self.forward_decoder(latent, visible, masked)
        return self.forward_loss(select(patches, masked), prediction)

    def patchify(self, images: Tensor) -> Tensor:
        """Cut images, B C H W, into flat patches, B N P*P*C."""
        p = self.patch
        patches = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # B C h P w P
        return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Join flat patches, B N P*P*C, of a square image: B C H W."""
        side, p = int(patches.shape[1] ** 0.5), self.patch
        images = patches.unflatten(2, (p, p, -1)).unflatten(1, (side, side))  # B h w P P C
        return images.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def random_masking(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the patches that stay visible, those with the least noise, B V, and
        of the masked ones, B M."""
        order = noise.argsort(dim=1)
        visible = round(noise.shape[1] * (1 - self.mask_ratio))
        return order[:, :visible], order[:, visible:]

    def forward_encoder(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Encode the visible patches, B V P*P*C, at their positions: B 1+V D.

        The patch embedding's convolution has one window a patch: a product with each visible one.
        """
        encoder = self.encoder
        assert encoder.pos_embed is not None
        assert encoder.cls_token is not None
        projection = encoder.patch_embed.proj
        weight = projection.weight.permute(0, 2, 3, 1).flatten(1)  # D P*P*C
        tokens = functional.linear(patches, weight, projection.bias)  # B V D
        tokens = tokens + select(encoder.pos_embed[:, 1:], visible).to(tokens.dtype)
        cls = (encoder.cls_token + encoder.pos_embed[:, :1]).to(tokens.dtype)
        tokens = encoder.norm_pre(torch.cat([cls.expand(len(tokens), -1, -1), tokens], dim=1))
        for block in encoder.blocks:
            tokens = forward_block(block, tokens)
        return normalize(encoder.norm, tokens)

    def forward_decoder(self, latent: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the masked patches, B M P*P*C, from the encoded visible ones.

        Attention does not see the order of the tokens, but their positions: so the visible stay in
        front, and nothing is put back into place.
        """
        tokens = self.decoder_embed(latent)  # B 1+V d
        mask_tokens = self.mask_token.to(tokens.dtype).expand(*masked.shape, -1)
        places = torch.cat([visible, masked], dim=1)
        positions = select(self.decoder_positions[:, 1:], places)
        cls_position = self.decoder_positions[:, :1].expand(len(latent), -1, -1)
        positions = torch.cat([cls_position, positions], dim=1).to(tokens.dtype)
        tokens = torch.cat([tokens, mask_tokens], dim=1) + positions
        *blocks, last = self.decoder_blocks
        for block in blocks:
            tokens = forward_block(block, tokens)
        tokens = forward_last(last, tokens, masked.shape[1])  # B M d
        return self.decoder_pred(normalize(self.decoder_norm, tokens))

    def targets(self, patches: Tensor) -> Tensor:
        """Return flat patches, each less its own mean, divided by the root of its variance and 1e-6.

        The paper's variance is that of a sample, of n - 1; a layer norm, one fused pass, divides by n.
        """
        pixels = patches.shape[-1]
        share = (pixels - 1) / pixels
        return share**0.5 * functional.layer_norm(patches, (pixels,), eps=share * 1e-6)

    def forward_loss(self, patches: Tensor, prediction: Tensor) -> Tensor:
        """Return the mean squared error of the prediction of masked patches."""
        return functional.mse_loss(prediction.float(), self.targets(patches))


def select(tokens: Tensor, indices: Tensor) -> Tensor:
    """Return the tokens, 1 or B N D, at indices, B K: B K D.

    Whole vectors are looked up: `gather`, which looks up numbers, takes ten times as long on a CPU.
    """
    first = torch.arange(len(tokens), device=indices.device) * tokens.shape[1]
    return functional.embedding(indices + first[:, None], tokens.flatten(0, 1))
