"""Reads a configuration from the environment and from a file.

What the options are is for `CacheConfig` alone to say: a field of it can be set in every way, without a word here.
Texts become numbers, durations and records by pydantic, which is imported when there is something to read.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from ._nearest import nearest
from .config import CacheConfig
from .exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

PREFIX: Final = "AURELIS_CACHE_"
FILE: Final = PREFIX + "CONFIG_FILE"
_IN_FILE: Final = "_file"
# Kubernetes tells each container of a service "aurelis-cache" where that is.
_OF_KUBERNETES: Final = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)\Z")


def load_config(file: str | os.PathLike[str] | None = None, **options: Any) -> CacheConfig:
    """A configuration from code, the environment and a TOML file; the first of these that names an option counts.

    Each field of `CacheConfig` is an option: `max_size=` here, `AURELIS_CACHE_MAX_SIZE` in the environment, and
    `max_size =` in the file. A variable that is empty counts as absent. What is no plain value is JSON in the
    environment. A secret may be in a file of its own, whose path is `AURELIS_CACHE_REDIS_PASSWORD_FILE` or
    `redis_password_file =`; line ends at its end do not count. Classes are named: `"package.module.Class"`.

    Args:
        file: path of the TOML file; `None`: the one that `AURELIS_CACHE_CONFIG_FILE` names, if any.
        options: as `CacheConfig` takes them.

    Raises:
        ConfigurationError: a name is not known, or a value cannot work; the text says where it stands, and repeats no
            value that cannot be read.
        MissingExtraError: there is something to read, and the extra `settings` is not installed; or as `CacheConfig`.
        OSError: a file that is named cannot be read.

    Example:
        >>> load_config(max_size=500).max_size
        500
    """
    return load(CacheConfig, file, options)


def load(kind: type[Record], file: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> Record:
    """`load_config` for any dataclass. Fields that its `repr` does not show are secrets."""
    known = {each.name: each.repr for each in fields(kind) if each.init}
    secrets = [name for name, shown in known.items() if not shown]
    for name in options:
        if name not in known:
            raise ConfigurationError(f"{name!r} is not an option{nearest(name, known)}")
    names = [*known, *(name + _IN_FILE for name in secrets)]
    environment = _environment(names)
    named = environment.pop(FILE, None)
    file = named if file is None else file
    if file is None and not environment:
        return kind(**options)
    table = {} if file is None else _table(Path(file))
    sources = [*environment] if file is None else [*environment, str(file)]
    for name in secrets:
        _read_secret(name, environment, table, given=name in options)
    for name in table:
        if name not in known:
            raise ConfigurationError(f"{file}: {name} is not an option{nearest(name, names)}")
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if name in options:
            continue
        if (text := environment.get(PREFIX + name.upper())) is not None:
            found[name] = _from_text(PREFIX + name.upper(), hint, text)
        elif name in table:
            found[name] = _validated(f"{file}: {name}", hint, json.dumps(table[name], default=str), typed=True)
    try:
        return kind(**{**found, **options})
    except ConfigurationError as error:
        error.add_note(f"the configuration is from {', '.join(sources)}")
        raise


def _environment(names: Sequence[str]) -> dict[str, str]:
    """The variables that are ours and not empty, by name in capital letters."""
    known = [FILE, *(PREFIX + name.upper() for name in names)]
    found = {}
    for name, value in os.environ.items():
        name = name.upper()
        if not name.startswith(PREFIX) or _OF_KUBERNETES.match(name.removeprefix(PREFIX)):
            continue
        if name not in known:
            raise ConfigurationError(f"{name} in the environment is not an option{nearest(name, known)}")
        if value:
            found[name] = value
    return found


def _table(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        problem = f"{file} is no TOML: {error.args[0] if error.args else 'it cannot be parsed'}"
    raise ConfigurationError(problem)  # not from within: that error may hold the whole text


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError:
        problem = f"{file} is not UTF-8"
    raise ConfigurationError(problem)  # likewise


def _read_secret(name: str, environment: dict[str, str], table: dict[str, Any], *, given: bool) -> None:
    """Put a secret that has a file of its own where a variable would be, since it is a text as well."""
    variable, key = PREFIX + name.upper(), name + _IN_FILE
    in_environment, in_table = environment.pop(PREFIX + key.upper(), None), table.pop(key, None)
    if in_environment is not None and variable in environment:
        raise ConfigurationError(f"{variable} and {PREFIX + key.upper()} contradict each other")
    if in_table is not None and name in table:
        raise ConfigurationError(f"{name} and {key} in the file contradict each other")
    if in_table is not None and not (isinstance(in_table, str) and in_table):
        raise ConfigurationError(f"{key} must be the path of a file")
    path = in_environment or in_table
    if path and not given and variable not in environment:
        environment[variable] = _text(Path(path)).rstrip("\r\n")


def _from_text(where: str, hint: Any, text: str) -> Any:
    """A value of the environment: a text, or JSON where that is what the option can be."""
    if text.startswith(("[", "{")):
        try:
            return _validated(where, hint, text, typed=True)
        except ConfigurationError as error:
            problem = error
        # A password may look like it, too.
        try:
            return _validated(where, hint, text)
        except ConfigurationError:
            pass
        raise problem
    return _validated(where, hint, text)


def _validated(where: str, hint: Any, text: str, *, typed: bool = False) -> Any:
    """The value in the type of the option.

    Args:
        typed: it is JSON, which tells numbers from texts; otherwise a text that stands for anything.
    """
    try:
        from pydantic import ConfigDict, ImportString, TypeAdapter, ValidationError
    except ImportError as error:
        raise MissingExtraError("settings", where) from error
    # `Any`: what pydantic takes for a type.
    wanted: Any = Sequence[ImportString[Any]] if hint == Sequence[type] else hint
    if is_dataclass(hint):
        wanted |= None  # pydantic gives a record by itself no other configuration
    adapter: TypeAdapter[Any] = TypeAdapter(wanted, config=ConfigDict(extra="forbid"))
    try:
        return adapter.validate_json(text, strict=True) if typed else adapter.validate_python(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    known: Iterable[str] = ()
    for part in first["loc"]:
        known, hint = _below(hint, part)
        if hint is None and not known:
            break  # what is left says which of several types was tried
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    if first["type"] == "unexpected_keyword_argument":
        problem = f"{where} is not an option{nearest(str(first['loc'][-1]), known)}"
    else:
        problem = f"{where}: {first['msg'].removeprefix('Value error, ')}"
    raise ConfigurationError(problem)  # not from within: pydantic's errors hold the values


def _below(hint: Any, part: object) -> tuple[Iterable[str], Any]:
    """For a type and a step into its values: the names that are possible, and the type there; `None`: there is none."""
    for kind in (hint, *get_args(hint)) if get_origin(hint) in (Union, UnionType) else (hint,):
        if is_dataclass(kind):
            names = get_type_hints(kind)
            return names, names.get(str(part))
        if isinstance(part, int) and isinstance(origin := get_origin(kind), type) and issubclass(origin, Sequence):
            return (), get_args(kind)[0]
        if isinstance(part, str) and isinstance(origin := get_origin(kind), type) and issubclass(origin, Mapping):
            return (), get_args(kind)[1]
    return (), None
