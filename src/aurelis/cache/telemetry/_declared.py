"""Records of what telemetry emits: attributes, metrics, spans. What they are is in `names`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
"""`counter`: observable counter. `gauge`: observable up-down counter. `histogram`: recorded directly."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of metrics or spans.

    Attributes:
        name: its name.
        brief: what it says.
        values: all values and what each means; empty: they are not listed.
        type: of its values.
        examples: of values that are not listed.
        open: values beside the listed ones may come, which users choose.
        foreign: it is one of OpenTelemetry's own.
    """

    name: str
    brief: str
    values: Mapping[str, str] = field(default_factory=dict)
    _: KW_ONLY
    type: Literal["string", "int", "double", "boolean"] = "string"
    examples: tuple[str | int | float, ...] = ()
    open: bool = False
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """An attribute as one metric or span has it.

    Attributes:
        attribute: its name.
        values: those that it has there; empty: all.
        only: where it is there; empty: always.
    """

    attribute: str
    values: tuple[str, ...] = ()
    only: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument.

    Attributes:
        name: its name.
        kind: of instrument.
        unit: by UCUM.
        description: what it counts, as the SDK exports it.
        attributes: beside the cache's name.
        when: what counts once, and what does not.
        example: a query of PromQL; `$` stands for the metric's name there.
        buckets: bounds of a histogram, in its unit.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[Use, ...]
    when: str
    example: str
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SpanKind:
    """One kind of span.

    Attributes:
        name: its name, in which `{name}` is that of the cache.
        brief: what it is around.
        when: when there is one.
        attributes: beside the cache's name.
    """

    name: str
    brief: str
    when: str
    attributes: tuple[Use, ...]
