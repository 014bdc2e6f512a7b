"""The segmenter: person matte, centres and offsets of people, coarse scene labels, for about 0.2 GMAC a 256² frame.

What is where comes from the first eleven blocks of EfficientNet-Lite0, which look at the frame at half resolution and
can start from ImageNet weights; where exactly borders run comes from a 7×7 stem of stride 4 on the full frame. A light
decoder joins them at /4 and ends in sub-pixel heads. BatchNorm after every convolution (folded on export), nearest
upsampling, no transposed convolution, no InstanceNorm: these are what makes it fast on CPUs. Centres and offsets follow
Panoptic-DeepLab (Cheng et al., CVPR 2020); who belongs together is learned as such: any cell of a person can be asked
which other cells are of the same person (`affinity`), after the dynamic masks of CondInst (Tian et al., ECCV 2020) and
the sequential clustering of Neven et al. (CVPR 2019).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgc.scene.affinity import EMBEDDING, OFFSET_UNIT, SATURATION
from streamgc.scene.labels import LABEL_COUNT


class SegmenterOutput(NamedTuple):
    """Logits and offsets for a batch of (N, 3, H, W) frames.

    matte: logits (N, 1, H, W). centre: logits (N, 1, H/4, W/4). offset: (N, 2, H/4, W/4), dy and dx to the centre of
    the person in units of `OFFSET_UNIT` pixels. labels: logits (N, LABEL_COUNT, H/16, W/16). embedding: (N, EMBEDDING,
    H/4, W/4), what a cell answers. query: (N, EMBEDDING + 1, H/8, W/8), what a cell asks for, and a bias.
    """

    matte: Tensor
    centre: Tensor
    offset: Tensor
    labels: Tensor
    embedding: Tensor
    query: Tensor


class ConvNorm(nn.Sequential):
    """Convolution without bias, BatchNorm, and ReLU unless it ends a residual branch."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if act:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Residual(nn.Module):
    """Two 3×3 convolutions around a bottleneck, added to the input. silent: it begins as the identity, so that it can
    be put into a trained network."""

    def __init__(self, channels: int, middle: int, silent: bool = False) -> None:
        super().__init__()
        self.enter = ConvNorm(channels, middle)
        self.leave = ConvNorm(middle, channels, act=False)
        if silent:
            nn.init.zeros_(self.leave[1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.leave(self.enter(x)))


class Block(nn.Module):
    """An inverted bottleneck of EfficientNet-Lite0: expand, depthwise, project; ReLU6, no squeeze and excitation.

    TensorFlow pads strided convolutions at the right and below; so must we, where sizes are even, for its weights to
    fit.
    """

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int, lopsided: bool = True) -> None:
        super().__init__()
        middle = inputs * expand
        self.expand = nn.Sequential(nn.Conv2d(inputs, middle, 1, bias=False), _norm(middle)) if expand > 1 else None
        self.lopsided = stride == 2 and lopsided
        self.kernel = kernel
        padding = 0 if self.lopsided else kernel // 2
        self.depthwise = nn.Conv2d(middle, middle, kernel, stride, padding, groups=middle, bias=False)
        self.depthwise_norm = _norm(middle)
        self.project = nn.Sequential(nn.Conv2d(middle, outputs, 1, bias=False), _norm(outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else F.relu6(self.expand(x))
        if self.lopsided:
            y = _pad_lopsided(y, self.kernel)
        y = F.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.project(y)
        return x + y if self.adds else y


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.05)


def _pad_lopsided(x: Tensor, kernel: int) -> Tensor:
    before = (kernel - 2) // 2
    return F.pad(x, (before, kernel - 2 - before, before, kernel - 2 - before))


BLOCKS: tuple[tuple[int, int, int, int, int], ...] = (
    (32, 16, 1, 3, 1),
    (16, 24, 6, 3, 2),
    (24, 24, 6, 3, 1),
    (24, 40, 6, 5, 2),
    (40, 40, 6, 5, 1),
    (40, 80, 6, 3, 2),
    (80, 80, 6, 3, 1),
    (80, 80, 6, 3, 1),
    (80, 112, 6, 5, 1),
    (112, 112, 6, 5, 1),
    (112, 112, 6, 5, 1),
)
"""Inputs, outputs, expansion, kernel and stride of EfficientNet-Lite0's first eleven blocks."""


class Encoder(nn.Module):
    """EfficientNet-Lite0 up to block 10, on the frame at half size: features at /4 (16), /8 (24), /16 (40), /32
    (112)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 6, 4, bias=False)
        self.stem_norm = _norm(32)
        self.blocks = nn.ModuleList(Block(*spec, lopsided=number != 5) for number, spec in enumerate(BLOCKS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x: frames less their mean (`normalised`)."""
        y = F.relu6(self.stem_norm(self.stem(F.pad(x, (0, 2, 0, 2)))))
        x4 = self.blocks[0](y)
        x8 = self.blocks[2](self.blocks[1](x4))
        x16 = self.blocks[4](self.blocks[3](x8))
        y = x16
        for block in self.blocks[5:]:
            y = block(y)
        return x4, x8, x16, y

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Weights of an `efficientnet_lite_pytorch` state dict; raises KeyError where it is another network."""
        own = {name: state[_imagenet_name(name)] for name in self.state_dict()}
        own["stem.weight"] = at_twice_the_size(own["stem.weight"])
        self.load_state_dict(own)


def normalised(x: Tensor) -> Tensor:
    """Frames 0..1 with the mean and scale that EfficientNet-Lite was trained with; their padding is middle grey."""
    return x * (255 / 128) - 127 / 128


def at_twice_the_size(kernel: Tensor) -> Tensor:
    """A kernel (O, I, k, k) of stride s for halved pictures as one (O, I, 2k, 2k) of stride 2s for whole ones: the mean
    of 2×2 pixels is part of it, which takes a tenth of the network's time when it is a layer of its own."""
    return kernel.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4


def _imagenet_name(name: str) -> str:
    """The name in `efficientnet_lite_pytorch` of one of our encoder's tensors."""
    parts = name.split(".")
    if parts[0] != "blocks":
        return {"stem": "_conv_stem", "stem_norm": "_bn0"}[parts[0]] + "." + parts[1]
    number, layer, tail = parts[1], parts[2], parts[-1]
    if layer in ("expand", "project"):
        norm = {"expand": "_bn0", "project": "_bn2"}[layer]
        layer = f"_{layer}_conv" if parts[3] == "0" else norm
    else:
        layer = {"depthwise": "_depthwise_conv", "depthwise_norm": "_bn1"}[layer]
    return f"_blocks.{number}.{layer}.{tail}"


class Gate(nn.Module):
    """Squeeze and excitation: channels weighted by what the whole frame shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        weights: Tensor = torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))
        return x * weights


class Segmenter(nn.Module):
    """Frames in, `SegmenterOutput` out; H and W are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        w4, w8, w16, w32 = 24, 48, 80, 112
        self.encoder = Encoder()
        self.detail = ConvNorm(3, w4, 7, stride=4)
        self.gate = Gate(w32)
        self.wide32 = Block(w32, w32, 6, 5, 1)
        self.deep32 = Block(w32, w32, 6, 5, 1)
        for block in (self.wide32, self.deep32):
            nn.init.zeros_(block.project[1].weight)  # type: ignore[arg-type]
        self.context = ConvNorm(w32, w16, 1)
        self.side16 = ConvNorm(40, w16, 1, act=False)
        self.merge16 = nn.Sequential(nn.ReLU(inplace=True), ConvNorm(w16, w16))
        self.deep16 = Residual(w16, w16 // 2, silent=True)
        self.wide16 = Residual(w16, 56, silent=True)
        self.down8 = ConvNorm(w16, w8, 1, act=False)
        self.side8 = ConvNorm(24, w8, 1, act=False)
        self.merge8 = nn.Sequential(nn.ReLU(inplace=True), Residual(w8, w8))
        self.wide8 = Residual(w8, w8, silent=True)
        self.down4 = ConvNorm(w8, w4, 1)
        self.side4 = ConvNorm(16, w4, 1)
        self.merge4 = ConvNorm(w4, 32)
        self.matte_head = nn.Conv2d(32, 16, 3, padding=1)
        self.person_head = nn.Conv2d(32, 3, 1)
        self.embedding_head = nn.Conv2d(32, EMBEDDING, 1)
        self.query_head = nn.Conv2d(w8, EMBEDDING + 1, 1)
        self.label_head = nn.Conv2d(w16, LABEL_COUNT, 1)
        nn.init.constant_(self.person_head.bias[:1], -3.0)  # type: ignore[index]
        # At first votes alone decide who belongs together.
        nn.init.normal_(self.query_head.weight, std=0.01)
        nn.init.constant_(self.query_head.bias[EMBEDDING:], 2.0)  # type: ignore[index]

    def forward(self, x: Tensor) -> SegmenterOutput:
        """x: (N, 3, H, W) in 0..1."""
        x = normalised(x)
        x4, x8, x16, x32 = self.encoder(x)
        height, width = x.shape[2] // 16, x.shape[3] // 16
        deep = self.context(self.gate(self.deep32(self.wide32(x32))))
        # H / 16 may be odd; the crop keeps /32 and /16 aligned at the top left.
        y16 = self.side16(x16) + F.interpolate(deep, scale_factor=2.0)[:, :, :height, :width]
        y16 = self.wide16(self.deep16(self.merge16(y16)))
        y8 = self.merge8(self.side8(x8) + F.interpolate(self.down8(y16), scale_factor=2.0))
        y8 = self.wide8(y8)
        fine = self.side4(x4) + self.detail(x)
        y4 = self.merge4(fine + F.interpolate(self.down4(y8), scale_factor=2.0))
        person = self.person_head(y4)
        return SegmenterOutput(
            F.pixel_shuffle(self.matte_head(y4), 4),
            person[:, :1],
            person[:, 1:],
            self.label_head(y16),
            self.embedding_head(y4),
            self.query_head(y8),
        )


class SegmenterGraph(nn.Module):
    """The exported interface: pre- and post-processing inside the graph.

    `frame` u8 (1, H, W, 3) RGB → `matte` u8 (1, H, W, 1), `centre` f32 (1, H/4, W/4, 1) in 0..1, `offset` f32 (1, H/4,
    W/4, 2) in pixels (dy, dx), `labels` u8 (1, H/16, W/16), `embedding` f32 (1, H/4, W/4, EMBEDDING), `query` f32 (1,
    H/8, W/8, EMBEDDING + 1).
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        x = frame.to(torch.float32).permute(0, 3, 1, 2) * (1 / 255)
        out = self.network(x)
        matte = (torch.sigmoid(out.matte) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)
        centre = torch.sigmoid(out.centre).permute(0, 2, 3, 1)
        offset = (out.offset * OFFSET_UNIT).permute(0, 2, 3, 1)
        labels = out.labels.argmax(1).to(torch.uint8)
        embedding = out.embedding.permute(0, 2, 3, 1)
        query = out.query.permute(0, 2, 3, 1)
        return matte, centre, offset, labels, embedding, query


def affinity(output: SegmenterOutput, sample: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Logits (Q, H/4, W/4) that each cell is of the person that the cell at (row, column) of `sample` is of; all int64
    (Q,), rows and columns at /4. The same sum in numpy: `streamgc.scene.affinity.logits`."""
    height, width = output.offset.shape[2:]
    rows = torch.arange(height, dtype=torch.float32)[:, None] * (4 / OFFSET_UNIT)
    columns = torch.arange(width, dtype=torch.float32)[None] * (4 / OFFSET_UNIT)
    votes = output.offset.float() + torch.stack([rows.expand(height, width), columns.expand(height, width)])
    asked = output.query.float()[sample, :, row // 2, column // 2]
    answer = (output.embedding.float()[sample] * asked[:, :EMBEDDING, None, None]).sum(1)
    square = (votes[sample] - votes[sample, :, row, column][:, :, None, None]).square().sum(1)
    return answer + asked[:, EMBEDDING, None, None] - SATURATION * square / (1 + square)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
