"""The autoencoder's parts against their definitions."""

from collections.abc import Callable

import pytest
import torch
from default_params import default_params
from torch import Tensor, nn

from dbp_mae.encoder import EncoderSpec
from dbp_mae.pretraining import masked_autoencoder
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder, select

SPEC = EncoderSpec("nano", 8, 32, 3, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))


def model() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(SPEC, default_params().pretrain)


def crops(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return pixels, torch.rand(count, 16, generator=generator)


def test_patches_join_to_the_image() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    patches = model().patchify(images)
    assert patches.shape == (2, 16, 8 * 8 * 3)
    torch.testing.assert_close(model().unpatchify(patches), images)
    first_row_second_patch = images[0, :, 0:8, 8:16].permute(1, 2, 0).flatten()
    torch.testing.assert_close(patches[0, 1], first_row_second_patch)


def test_patches_are_in_the_order_of_timm() -> None:
    autoencoder = model()
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:16, 0:8] = 1.0  # second row, first column: patch 4
    changed = (
        autoencoder.encoder.patch_embed(images) - autoencoder.encoder.patch_embed(0 * images)
    ).abs()
    assert changed.sum(dim=2)[0].nonzero().flatten().tolist() == [4]
    assert autoencoder.patchify(images).sum(dim=2)[0].nonzero().flatten().tolist() == [4]


def test_masking_divides_the_patches_by_their_noise() -> None:
    noise = crops()[1]
    visible, masked = model().random_masking(noise)
    assert visible.shape == (4, 4)
    assert masked.shape == (4, 12)
    order = torch.cat([visible, masked], dim=1)
    assert (order.sort(dim=1).values == torch.arange(16)).all()
    assert (noise.gather(1, visible).amax(dim=1) < noise.gather(1, masked).amin(dim=1)).all()


@pytest.mark.parametrize("images", [1, 4])
def test_selected_tokens_are_those_at_the_indices(images: int) -> None:
    tokens = torch.rand(images, 16, 5, generator=torch.Generator().manual_seed(0))
    visible, _ = model().random_masking(crops()[1])
    selected = select(tokens, visible)
    assert selected.shape == (4, 4, 5)
    for image in range(4):
        for place, index in enumerate(visible[image]):
            assert torch.equal(selected[image, place], tokens[image % images, index])


def predict(autoencoder: MaskedAutoencoder, patches: Tensor, noise: Tensor) -> Tensor:
    visible, masked = autoencoder.random_masking(noise)
    latent = autoencoder.forward_encoder(select(patches, visible), visible)
    return autoencoder.forward_decoder(latent, visible, masked)


def test_a_model_in_training_and_in_evaluation_is_one() -> None:
    """The training never switches between them."""
    autoencoder = model()
    batch = crops()
    assert torch.equal(autoencoder.train()(*batch), autoencoder.eval()(*batch))


def test_prediction_sees_nothing_of_masked_patches() -> None:
    autoencoder = model().eval()
    pixels, noise = crops()
    patches = autoencoder.patchify(autoencoder.normalize(pixels))
    _, masked = autoencoder.random_masking(noise)
    changed = patches.scatter(1, masked[:, :, None].expand(-1, -1, patches.shape[2]), 5.0)
    before, after = (predict(autoencoder, x, noise) for x in (patches, changed))
    assert not torch.equal(patches, changed)
    assert torch.equal(before, after)


def test_decoder_equals_the_one_over_all_patches_in_their_place() -> None:
    """The paper's order: mask tokens among the visible ones, a prediction for every patch."""
    autoencoder = model().eval()
    pixels, noise = crops()
    visible, masked = autoencoder.random_masking(noise)
    patches = autoencoder.patchify(autoencoder.normalize(pixels))
    latent = autoencoder.forward_encoder(select(patches, visible), visible)

    width = autoencoder.mask_token.shape[2]
    tokens = autoencoder.decoder_embed(latent)
    places = visible[:, :, None].expand(-1, -1, width)
    everywhere = autoencoder.mask_token.expand(4, 16, -1).scatter(1, places, tokens[:, 1:])
    everywhere = torch.cat([tokens[:, :1], everywhere], dim=1) + autoencoder.decoder_positions
    decoded = autoencoder.decoder_norm(autoencoder.decoder_blocks(everywhere))
    expected = select(autoencoder.decoder_pred(decoded)[:, 1:], masked)
    torch.testing.assert_close(autoencoder.forward_decoder(latent, visible, masked), expected)


def test_loss_is_of_patches_without_their_mean_and_variance() -> None:
    autoencoder = model()
    patches = autoencoder.patchify(autoencoder.normalize(crops()[0]))
    truth = autoencoder.targets(patches)
    torch.testing.assert_close(truth.mean(dim=2), torch.zeros(4, 16), atol=1e-5, rtol=0)
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    torch.testing.assert_close(truth, (patches - mean) / (variance + 1e-6).sqrt())
    assert float(autoencoder.forward_loss(patches, truth)) == 0
    torch.testing.assert_close(autoencoder.forward_loss(patches, truth + 3), torch.tensor(9.0))


def test_under_autocast_tokens_keep_its_format_from_block_to_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    formats = []

    def noting(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noted(block: nn.Module, tokens: Tensor, *count: int) -> Tensor:
            result = forward(block, tokens, *count)
            formats.extend([tokens.dtype, result.dtype])
            return result

        return noted

    for name in ("forward_block", "forward_last"):
        monkeypatch.setattr(masked_autoencoder, name, noting(getattr(masked_autoencoder, name)))
    autoencoder = model()
    with torch.autocast("cpu", torch.bfloat16):
        autoencoder(*crops())
    blocks = len(autoencoder.encoder.blocks) + len(autoencoder.decoder_blocks)
    assert formats == [torch.bfloat16] * 2 * blocks


def test_all_visible_equals_timm_forward() -> None:
    autoencoder = model().eval()
    images = autoencoder.normalize(crops()[0])
    everything = torch.arange(16).expand(4, -1)
    torch.testing.assert_close(
        autoencoder.forward_encoder(autoencoder.patchify(images), everything),
        autoencoder.encoder.forward_features(images),
    )
