"""The protocol of Ollama's own API: JSON by lines, streamed unless the call says otherwise."""

from __future__ import annotations

from ._answer import INCOMPLETE, LENGTH, Dialect, Document, Findings, members, parse
from ._openai import has_client_tools_alone, names_model
from ._splitting import Frame
from ._usage import total


def admits_chat(body: Document) -> bool:
    """Whether a body is a chat that may be cached; without messages it loads the model into memory or lets go of it."""
    messages = body.get("messages")
    return isinstance(messages, list) and bool(messages) and names_model(body) and has_client_tools_alone(body)


def admits_generate(body: Document) -> bool:
    """Whether a body asks for the completion of a text; without one it loads the model, too."""
    prompt = body.get("prompt")
    return isinstance(prompt, str) and bool(prompt) and names_model(body)


def admits_embed(body: Document) -> bool:
    """Whether a body asks for embeddings."""
    return isinstance(body.get("input"), (str, list)) and names_model(body)


def admits_embeddings(body: Document) -> bool:
    """The same in the older form, of one text."""
    return isinstance(body.get("prompt"), str) and names_model(body) and not isinstance(body.get("input"), (str, list))


def temperature(body: Document) -> object:
    """What a body says of the temperature."""
    return members(body.get("options")).get("temperature")


def _read(document: Document, findings: Findings) -> None:
    findings.named(document.get("model"))
    findings.used(total(document, "prompt_eval_count"), total(document, "eval_count"))
    is_done = document.get("done") is True
    if isinstance(document.get("message"), dict) or isinstance(document.get("response"), str):
        # Older servers give no reason.
        findings.choice(0, document.get("done_reason", "stop") if is_done else None)
    findings.ended = findings.ended or is_done


def _read_whole(document: Document, findings: Findings) -> None:
    findings.ended = False
    _read(document, findings)


def _ends(frame: Frame, choices: int) -> bool:
    if b'"done"' not in frame.data or b"true" not in frame.data:
        return False
    document = parse(frame.data)
    return document is not None and document.get("done") is True


LINES = Dialect(
    read=_read_whole,
    read_event=_read,
    ends=_ends,
    good=frozenset({"stop"}),
    reasons={"length": LENGTH},
    otherwise=INCOMPLETE,  # `load`, `unload`
)


def _read_embeddings(document: Document, findings: Findings) -> None:
    findings.named(document.get("model"))
    if document.get("embeddings") or document.get("embedding"):
        findings.choice(0, "stop")
    tokens = total(document, "prompt_eval_count")
    if tokens is not None:
        findings.used(tokens, 0)


EMBEDDINGS = Dialect(read=_read_embeddings)
