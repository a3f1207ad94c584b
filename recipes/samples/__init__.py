"""Training samples of pre-training and fine-tuning: sources, mixtures, and samples as token ids."""

from recipes.samples.encode import encode_sample
from recipes.samples.sample import Rejected, Sample
from recipes.samples.stream import (
    DataConfig,
    Encoded,
    EncodedStream,
    FilterReport,
    OpenSources,
    SampleSource,
    SampleStream,
)

__all__ = [
    "DataConfig",
    "Encoded",
    "EncodedStream",
    "FilterReport",
    "OpenSources",
    "Rejected",
    "Sample",
    "SampleSource",
    "SampleStream",
    "encode_sample",
]
