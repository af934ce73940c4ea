"""HTTP caching rules as pure functions and records: RFC 9111 and its companions."""

from __future__ import annotations

from ._addresses import KeyBuilder, identifier_of
from ._age import (
    Freshness,
    age_brought,
    corrected_initial_age,
    current_age,
    date_of,
    freshness,
)
from ._directives import (
    RequestDirectives,
    ResponseDirectives,
    request_directives,
    response_directives,
    target_names,
    targeted_directives,
)
from ._elsewhere import ELSEWHERE_FIELDS, encoded_elsewhere, told_elsewhere
from ._grammar import MAX_DELTA_SECONDS, http_date
from ._invalidation import SAFE_METHODS, as_get, invalidated
from ._key_parts import TRACKING_PARAMETERS
from ._messages import (
    Fields,
    HttpRequest,
    LoadedResponse,
    ResponseHead,
    RuleEffect,
    StoredPart,
    StoredResponse,
    VariantIndex,
    combine,
)
from ._policy import HttpPolicy
from ._ranges import MAX_RANGES, Part, part_of
from ._reuse import is_not_modified, not_modified_fields
from ._rule_files import Principal, load_rules
from ._rules import Admission, CacheRule, TargetRule, match_rule, rules_for
from ._status import CacheStatus, Going, append_status
from ._storing import Storable, Unstorable, forwardable_fields, is_complete, may_store, storable_fields
from ._tagging import group_tag, invalidated_groups
from ._validation import conditional
from ._variants import selects_same, variant_digest, vary_names

__all__ = [
    "ELSEWHERE_FIELDS",
    "MAX_DELTA_SECONDS",
    "MAX_RANGES",
    "SAFE_METHODS",
    "TRACKING_PARAMETERS",
    "Admission",
    "CacheRule",
    "CacheStatus",
    "Fields",
    "Freshness",
    "Going",
    "HttpPolicy",
    "HttpRequest",
    "KeyBuilder",
    "LoadedResponse",
    "Part",
    "Principal",
    "RequestDirectives",
    "ResponseDirectives",
    "ResponseHead",
    "RuleEffect",
    "Storable",
    "StoredPart",
    "StoredResponse",
    "TargetRule",
    "Unstorable",
    "VariantIndex",
    "age_brought",
    "append_status",
    "as_get",
    "combine",
    "conditional",
    "corrected_initial_age",
    "current_age",
    "date_of",
    "encoded_elsewhere",
    "forwardable_fields",
    "freshness",
    "group_tag",
    "http_date",
    "identifier_of",
    "invalidated",
    "invalidated_groups",
    "is_complete",
    "is_not_modified",
    "load_rules",
    "match_rule",
    "may_store",
    "not_modified_fields",
    "part_of",
    "request_directives",
    "response_directives",
    "rules_for",
    "selects_same",
    "storable_fields",
    "target_names",
    "targeted_directives",
    "told_elsewhere",
    "variant_digest",
    "vary_names",
]
