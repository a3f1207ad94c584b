"""Image processor: pictures -> views cut into patches, and the text that holds their places in a prompt.

Legend: P side of a patch in pixels, N patches of a view (rows x columns, row-major).

The fields of ``preprocessor_config.json``, the names of the results and their shapes are those of the official
MiniCPM-V 4.5 checkpoint, so that engines made for it take ours; no torchvision and no remote code is needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from base_model.vlm.images import to_rgb
from base_model.vlm.slicing import SlicePlan, choose_grid, plan_slices

Size = Sequence[int]
"""(width, height) in pixels."""


class MiniCPMVImageProcessor(BaseImageProcessor):
    """Cuts images into views (adaptive slicing) and views into patches.

    Args:
        max_slice_nums: most cells of an image's grid; the overview comes on top.
        scale_resolution: side of the square whose area a view should have, in pixels.
        patch_size: side of a patch, in pixels.
        use_image_id: whether ``<image_id>k</image_id>`` stands before the k-th image of a prompt.
        image_feature_size: tokens of one view (the resampler's queries).
        slice_mode: whether images are cut at all.
        im_start, im_end, slice_start, slice_end, unk, im_id_start, im_id_end: the special tokens.
        norm_mean, norm_std: per channel, of values in 0..1.
        version: of the layout.
    """

    model_input_names = ["pixel_values", "tgt_sizes"]  # noqa: RUF012 (transformers reads it from the class)

    def __init__(
        self,
        max_slice_nums: int = 9,
        scale_resolution: int = 448,
        patch_size: int = 14,
        use_image_id: bool = True,
        image_feature_size: int = 64,
        slice_mode: bool = True,
        im_start: str = "<image>",
        im_end: str = "</image>",
        slice_start: str = "<slice>",
        slice_end: str = "</slice>",
        unk: str = "<unk>",
        im_id_start: str = "<image_id>",
        im_id_end: str = "</image_id>",
        norm_mean: Sequence[float] = (0.5, 0.5, 0.5),
        norm_std: Sequence[float] = (0.5, 0.5, 0.5),
        version: float = 4.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_slice_nums = max_slice_nums
        self.scale_resolution = scale_resolution
        self.patch_size = patch_size
        self.use_image_id = use_image_id
        self.image_feature_size = image_feature_size
        self.slice_mode = slice_mode
        self.im_start, self.im_end = im_start, im_end
        self.slice_start, self.slice_end = slice_start, slice_end
        self.unk = unk
        self.im_id_start, self.im_id_end = im_id_start, im_id_end
        self.norm_mean, self.norm_std = list(norm_mean), list(norm_std)
        self.version = version

    @property
    def special_tokens(self) -> list[str]:
        """The tokens that the placeholders are made of, the one that stands for image features first."""
        return [
            self.unk,
            self.im_start,
            self.im_end,
            self.slice_start,
            self.slice_end,
            self.im_id_start,
            self.im_id_end,
        ]

    def plan(self, size: Size, max_slice_nums: int | None = None) -> SlicePlan:
        """How an image of (width, height) is shown; ``max_slice_nums`` = 1 for frames of a video."""
        return plan_slices(
            *size,
            scale=self.scale_resolution,
            patch=self.patch_size,
            max_slices=self._max_slices(max_slice_nums),
        )

    def get_sliced_grid(self, image_size: Size, max_slice_nums: int | None = None, *_: Any) -> tuple[int, int] | None:
        """(columns, rows) of the grid; None = the image is not cut."""
        width, height = image_size
        return choose_grid(width, height, scale=self.scale_resolution, max_slices=self._max_slices(max_slice_nums))

    def num_tokens(self, image_size: Size, max_slice_nums: int | None = None) -> int:
        """Tokens that carry the features of an image."""
        columns, rows = self.get_sliced_grid(image_size, max_slice_nums) or (0, 0)
        return self.image_feature_size * (1 + columns * rows)

    def get_slice_image_placeholder(
        self,
        image_size: Size,
        image_idx: int = 0,
        max_slice_nums: int | None = None,
        use_image_id: bool | None = None,
    ) -> str:
        """The text that holds an image's place: its number, the overview, and a line of cells per row of the grid."""
        features = self.unk * self.image_feature_size
        text = f"{self.im_start}{features}{self.im_end}"
        if self.use_image_id if use_image_id is None else use_image_id:
            text = f"{self.im_id_start}{image_idx}{self.im_id_end}{text}"
        columns, rows = self.get_sliced_grid(image_size, max_slice_nums) or (0, 0)
        cell = f"{self.slice_start}{features}{self.slice_end}"
        return text + "\n".join([cell * columns] * rows)

    def get_video_placeholder(self, packages: int) -> str:
        """The text that holds a packed video's place: one block per package, a line each, without a number."""
        block = f"{self.im_start}{self.unk * self.image_feature_size}{self.im_end}"
        return "\n".join([block] * packages)

    def views(self, image: Image.Image, max_slice_nums: int | None = None) -> list[Image.Image]:
        """The overview and then the cells, row by row, of an RGB image."""
        plan = self.plan(image.size, max_slice_nums)
        views = [image.resize(plan.overview, Image.Resampling.BICUBIC)]
        if plan.grid is None or plan.cell is None:
            return views
        (columns, rows), (width, height) = plan.grid, plan.cell
        whole = image.resize((columns * width, rows * height), Image.Resampling.BICUBIC)
        boxes = ((x * width, y * height) for y in range(rows) for x in range(columns))
        return views + [whole.crop((left, top, left + width, top + height)) for left, top in boxes]

    def patches(self, view: Image.Image) -> tuple[Tensor, tuple[int, int]]:
        """Normalised patches [3, P, N * P] side by side, and (rows, columns) of patches."""
        side = self.patch_size
        mean, std = (np.asarray(each, dtype=np.float32) for each in (self.norm_mean, self.norm_std))
        pixels = (np.asarray(view, dtype=np.float32) / 255 - mean) / std
        rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
        grid = torch.from_numpy(pixels).permute(2, 0, 1).reshape(3, rows, side, columns, side)
        return grid.permute(0, 2, 1, 3, 4).reshape(3, side, -1), (rows, columns)

    def preprocess(
        self, images: Any, max_slice_nums: int | None = None, do_pad: bool = True, return_tensors: Any = None
    ) -> BatchFeature:
        """Views and patches of the images of each sample.

        Args:
            images: one image, a list of images (one sample), or a list of such lists; see ``images.to_rgb`` for what
                counts as an image.
            max_slice_nums: most cells; None = the processor's own. 1 for frames of a video.
            do_pad, return_tensors: accepted as engines pass them; results are lists of torch tensors, as sizes differ.

        Returns:
            Per sample: ``pixel_values`` (a list of views [3, P, N * P]), ``image_sizes`` (per image, (width, height)
            upright) and ``tgt_sizes`` [views, 2] (rows and columns of patches).

        Raises:
            ValueError: something is not an image, or an image cannot be cut (see ``plan_slices``).
        """
        samples = [self._sample(sample, max_slice_nums) for sample in _nested(images)]
        names = ("pixel_values", "image_sizes", "tgt_sizes")
        return BatchFeature({name: [sample[name] for sample in samples] for name in names})

    def _sample(self, images: Sequence[Any], max_slice_nums: int | None) -> dict[str, Any]:
        pixels: list[Tensor] = []
        sizes: list[Tensor] = []
        grids: list[tuple[int, int]] = []
        for image in map(to_rgb, images):
            sizes.append(torch.tensor(image.size))
            for view in self.views(image, max_slice_nums):
                patches, grid = self.patches(view)
                pixels.append(patches)
                grids.append(grid)
        tgt_sizes = torch.tensor(grids, dtype=torch.int32).view(-1, 2)
        return {"pixel_values": pixels, "image_sizes": sizes, "tgt_sizes": tgt_sizes}

    def _max_slices(self, wanted: int | None) -> int:
        if not self.slice_mode:
            return 1
        return self.max_slice_nums if wanted is None else wanted


def _nested(images: Any) -> list[Sequence[Any]]:
    """One image, a sample's images, or several samples' images -> several samples' images."""
    if not isinstance(images, list | tuple):
        return [[images]]
    if all(isinstance(sample, list | tuple) for sample in images):
        return list(images)
    return [images]
