"""Stands in for the package `aurelis.models`, which the examples of the reference interface call."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModelRequest:
    """A call of a model."""

    model_type: str
    prompt: str
    temperature: float = 1.0


@dataclass
class ModelResponse:
    """The answer of a model."""

    content: str
    status: str = "success"


@dataclass
class ModelConfig:
    """Settings of a model."""

    name: str


@dataclass
class Orchestrator:
    """Calls models; `asked` has the calls so far."""

    asked: list[ModelRequest] = field(default_factory=list)

    async def process_request(self, request: ModelRequest) -> ModelResponse:
        """An answer."""
        self.asked.append(request)
        return ModelResponse(f"answer to {request.prompt}")


@dataclass
class ConfigManager:
    """Where settings are kept."""

    changed: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def update_model_config(self, model_type: str, new_config: dict[str, Any]) -> None:
        """Keep other settings."""
        self.changed.append((model_type, new_config))


ORCHESTRATOR = Orchestrator()


def get_model_orchestrator() -> Orchestrator:
    """The one of the process."""
    return ORCHESTRATOR
