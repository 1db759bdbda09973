"""The encoder of an encoder-decoder as a classifier, where transformers has none."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, T5Config, T5EncoderModel, T5PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class T5EncoderForSequenceClassification(T5PreTrainedModel):  # type: ignore[misc]
    """T5's encoder and a linear head on the mean of its last hidden states.

    T5 has no token that stands for a sentence, and transformers' own classifier reads one at the end of the decoder. So
    the head sees the mean over the real tokens, the end-of-sequence token among them. Checkpoints of the whole T5 and
    of its encoder both hold all that lies below the head.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.transformer = T5EncoderModel(config)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    @classmethod
    def from_config(cls, config: PreTrainedConfig, *, trust_remote_code: bool, **options: Any) -> Any:
        """Make a model without weights, as the `from_config` of transformers' Auto classes does.

        Args:
            config: that of the T5.
            trust_remote_code: means nothing here, as the code is known.
            options: as those of the Auto classes.
        """
        return cls._from_config(config, **options)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """Logits (B, C) of token ids and their mask (B, T), which is 0 at padding."""
        hidden: Tensor = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * real).sum(dim=1) / real.sum(dim=1)
        return SequenceClassifierOutput(logits=self.classifier(mean))
