"""The masked autoencoder around a timm Vision Transformer (arXiv 2111.06377)."""

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from dbp_mae.encoder import EncoderSpec, create_encoder, sincos_positions
from dbp_mae.params import HEAD_WIDTH, PretrainParams


class MaskedAutoencoder(nn.Module):
    """Reconstructs the masked patches of an image from the visible ones.

    The loss is the mean squared error on the masked patches, each target patch normalised by its own
    mean and variance.
    """

    mean: Tensor
    std: Tensor
    decoder_positions: Tensor

    def __init__(self, spec: EncoderSpec, params: PretrainParams) -> None:
        super().__init__()
        self.patch = spec.patch
        self.mask_ratio = params.mask_ratio
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

        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
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
        images = self.normalize(pixels)
        visible, mask, restore = self.random_masking(noise)
        latent = self.forward_encoder(images, visible)
        return self.forward_loss(images, self.forward_decoder(latent, restore), mask)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return raw crops with the data's own mean and variance removed."""
        return (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std

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

    def random_masking(self, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose the patches with the least noise.

        Returns:
            Indices of the visible patches, B V; the mask, B N, 1 where masked; and the order that puts
            visible and masked patches, in this sequence, back into place, B N.
        """
        order = noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        visible = max(1, round(noise.shape[1] * (1 - self.mask_ratio)))
        return order[:, :visible], (restore >= visible).float(), restore

    def forward_encoder(self, images: Tensor, visible: Tensor) -> Tensor:
        """Encode the visible patches of normalised images: B 1+V D."""
        encoder = self.encoder
        assert encoder.pos_embed is not None
        assert encoder.cls_token is not None
        tokens = encoder.patch_embed(images) + encoder.pos_embed[:, 1:]  # B N D
        tokens = tokens.gather(1, visible[:, :, None].expand(-1, -1, tokens.shape[2]))
        cls = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        return encoder.norm(encoder.blocks(encoder.norm_pre(torch.cat([cls, tokens], dim=1))))

    def forward_decoder(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Predict every patch, B N P*P*C, from the encoded visible ones."""
        tokens = self.decoder_embed(latent)
        masked = restore.shape[1] + 1 - tokens.shape[1]
        patches = torch.cat(
            [tokens[:, 1:], self.mask_token.to(tokens.dtype).expand(len(tokens), masked, -1)], dim=1
        )
        patches = patches.gather(1, restore[:, :, None].expand(-1, -1, tokens.shape[2]))
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + self.decoder_positions
        return self.decoder_pred(self.decoder_norm(self.decoder_blocks(tokens)))[:, 1:]

    def targets(self, images: Tensor) -> Tensor:
        """Return the patches, each with its own mean and variance removed: B N P*P*C."""
        patches = self.patchify(images)
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    def forward_loss(self, images: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
        """Return the mean squared error over the masked patches."""
        error = (prediction.float() - self.targets(images)).square().mean(dim=-1)  # B N
        return (error * mask).sum() / mask.sum()
