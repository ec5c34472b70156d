"""The autoencoder's parts against their definitions."""

import torch
from default_params import default_params

from dbp_mae.encoder import EncoderSpec
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder

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


def test_masking_hides_its_share_and_restores_the_order() -> None:
    visible, mask, restore = model().random_masking(crops()[1])
    assert visible.shape == (4, 4)
    assert mask.sum(dim=1).tolist() == [12.0] * 4
    assert (mask.gather(1, visible) == 0).all()
    for row in range(4):
        for position, patch in enumerate(visible[row].tolist()):
            assert restore[row, patch] == position


def test_prediction_sees_nothing_of_masked_patches() -> None:
    autoencoder = model().eval()
    pixels, noise = crops()
    images = autoencoder.normalize(pixels)
    visible, mask, restore = autoencoder.random_masking(noise)
    changed = images + 5 * autoencoder.unpatchify(
        mask[:, :, None].expand(-1, -1, 8 * 8 * 3).contiguous()
    )
    before, after = (
        autoencoder.forward_decoder(autoencoder.forward_encoder(x, visible), restore)
        for x in (images, changed)
    )
    torch.testing.assert_close(before, after)


def test_loss_counts_masked_patches_alone() -> None:
    autoencoder = model()
    pixels, noise = crops()
    images = autoencoder.normalize(pixels)
    _, mask, _ = autoencoder.random_masking(noise)
    truth = autoencoder.targets(images)
    wrong_where_visible = truth + 3 * (1 - mask)[:, :, None]
    assert float(autoencoder.forward_loss(images, wrong_where_visible, mask)) == 0
    wrong_where_masked = truth + 3 * mask[:, :, None]
    torch.testing.assert_close(
        autoencoder.forward_loss(images, wrong_where_masked, mask), torch.tensor(9.0)
    )


def test_all_visible_equals_timm_forward() -> None:
    autoencoder = model().eval()
    images = autoencoder.normalize(crops()[0])
    everything = torch.arange(16).expand(4, -1)
    torch.testing.assert_close(
        autoencoder.forward_encoder(images, everything),
        autoencoder.encoder.forward_features(images),
    )
