"""What the processes of the demo are told, as records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOST: Final = "127.0.0.1"
"""Everything listens on the loopback interface only."""

WEB: Final = "web"
MODELS: Final = "models"
FAQ: Final = "faq"
RATINGS: Final = "ratings"
"""Names of the caches, as they appear in telemetry."""

STAND_IN: Final = "stand-in"
"""Name of the model that the stand-in pretends to be."""
EMBEDDINGS: Final = "stand-in-embeddings"
"""Name of its model for embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for."""

    seconds: float | None = None
    """Length of the traffic; `None`: until a signal."""
    hold: float = 0.0
    """Seconds that the servers stay up after the traffic has ended."""
    faults: float | None = None
    """Seconds of undisturbed traffic, after which things fail on purpose; `None`: nothing does."""
    redis_url: str | None = None
    upstream: str | None = None
    """Base URL of a real OpenAI-compatible endpoint; `None`: the stand-in."""
    model: str = STAND_IN
    port: int = 0
    """Port of the first worker, the second takes the next; 0: any free ones."""
    rate: float = 150.0
    """Requests per second that the driver aims at."""
    users: int = 32
    """Requests that the driver has in flight at most."""
    seed: int = 1
    state_dir: str | None = None
    """Where the files of the demo stay; `None`: in a temporary folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """One worker: the web app, and its internal port."""

    web_fd: int
    """Listening socket of the app."""
    internal_fd: int
    """Listening socket for metrics and the origin's own counts."""
    catalog: str
    """Path of the SQLite file."""
    data: str
    """Folder for what lasts: answers of the model, ratings, and the journal of the ratings that wait."""
    namespace: str
    """Beginning of the namespaces of all caches; workers with the same one share their entries in Redis."""
    redis_url: str | None
    model_url: str
    model: str
    real_model: bool
    """Whether the endpoint gets the key from `OPENAI_API_KEY`."""
    temporary: str | None
    """Folder to remove if the parent goes without doing so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The stand-in for a chat model."""

    fd: int
    temporary: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """The traffic."""

    origins: list[str]
    """Base URLs of the workers."""
    catalog: str
    counts: str
    """Path of the file with the final counts."""
    rate: float
    users: int
    seed: int
    stand_in: bool
    """Whether the model is the stand-in; a real one gets fewer kinds of questions."""
    careless: bool
    """Whether users leave out hyphens, so that answers to similar questions may be wrong."""
    temporary: str | None
