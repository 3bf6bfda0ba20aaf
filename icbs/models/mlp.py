"""A multilayer perceptron on images as a transformers model, so that it loads like any other."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput


class MlpConfig(PretrainedConfig):
    """Sizes of a multilayer perceptron.

    Attributes:
        image_size: height and width of an image, in pixels.
        num_channels: channels of an image.
        hidden_sizes: outputs of each hidden layer.
        dropout: share of the hidden values dropped in training.
    """

    model_type = "icbs-mlp"

    def __init__(
        self,
        image_size: int = 28,
        num_channels: int = 1,
        hidden_sizes: tuple[int, ...] = (512, 512),
        dropout: float = 0.0,
        **others: Any,
    ) -> None:
        self.image_size = image_size
        self.num_channels = num_channels
        self.hidden_sizes = list(hidden_sizes)
        self.dropout = dropout
        super().__init__(**others)


class _MlpPreTrainedModel(PreTrainedModel):
    config_class = MlpConfig
    base_model_prefix = "mlp"
    main_input_name = "pixel_values"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


class MlpModel(_MlpPreTrainedModel):
    """The hidden layers, each Linear and ReLU."""

    def __init__(self, config: MlpConfig) -> None:
        super().__init__(config)
        widths = [config.num_channels * config.image_size**2, *config.hidden_sizes]
        self.layers = nn.ModuleList(
            nn.Linear(width, widths[i + 1]) for i, width in enumerate(widths[:-1])
        )
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Hidden values of images.

        Args:
            pixel_values: shape (B, channels, height, width).

        Returns:
            Shape (B, last hidden size).
        """
        hidden = pixel_values.flatten(1)
        for layer in self.layers:
            hidden = functional.relu(layer(hidden))
            hidden = functional.dropout(hidden, self.config.dropout, self.training)
        return hidden


class MlpForImageClassification(_MlpPreTrainedModel):
    """A multilayer perceptron with one output a class."""

    def __init__(self, config: MlpConfig) -> None:
        super().__init__(config)
        self.mlp = MlpModel(config)
        self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        """Logits, shape (B, classes), of images of shape (B, channels, height, width)."""
        return ImageClassifierOutput(logits=self.classifier(self.mlp(pixel_values)))


AutoConfig.register(MlpConfig.model_type, MlpConfig)
AutoModelForImageClassification.register(MlpConfig, MlpForImageClassification)
