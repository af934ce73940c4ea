"""Answers of models to similar prompts: see `SimilarityCache`.

Nothing here is imported before it is asked for, and numpy, rapidfuzz and usearch only by what needs them.
"""

from ._cache import SimilarityCache, SimilarMatch
from ._embedding import OpenAIEmbedder
from ._gate import refusal
from ._intervals import Interval, wilson
from ._verdicts import SimilarityReport
from ._verified import exploration
from ._wording import Reading, read

__all__ = [
    "Interval",
    "OpenAIEmbedder",
    "Reading",
    "SimilarMatch",
    "SimilarityCache",
    "SimilarityReport",
    "exploration",
    "read",
    "refusal",
    "wilson",
]
