"""What was asked: the options every registration takes, and the frozen values they become."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, TypedDict, cast, get_args

from hassette_aps.callables import misfit, name_of, runs_on_loop
from hassette_aps.triggers import Trigger, as_trigger
from hassette_aps.types import ErrorHandler, IfExists, JobFunction, Mode, Predicate

_CENTURY = 36_525 * 86_400

NO_KWARGS: Mapping[str, Any] = MappingProxyType({})


class JobOptions(TypedDict, total=False):
    """Options of every registration method (PEP 692); ``IfExists`` is the one that is not kept."""

    name: str
    """Unique per scheduler; empty means generated from the function and the trigger."""
    group: str | None
    """Label for ``list_jobs(group=)`` and ``cancel_group()``."""
    jitter: float | None
    """Each run is delayed by a fresh draw from ``[0, jitter)`` seconds."""
    timeout: float | None
    """Seconds a run may take; None = the scheduler's default."""
    timeout_disabled: bool
    """No limit for this job, whatever the default."""
    mode: Mode | None
    """Overlap: ``parallel``, ``single``, ``queued`` or ``restart``; None = the scheduler's default."""
    where: Predicate | None
    """Asked just before a run; false means ``skipped``, raising means ``error``."""
    on_error: ErrorHandler | None
    """Handler of this job's failures; wins over ``Scheduler.on_error``."""
    if_exists: IfExists
    """What to do when the name is taken: ``error``, ``skip`` or ``replace``."""
    args: Iterable[Any]
    """Positional arguments of the function, copied at registration."""
    kwargs: Mapping[str, Any]
    """Keyword arguments of the function, copied at registration."""
    jobstore: str | None
    """APScheduler job store alias for a job that must persist; None = ours, in memory."""
    executor: str | None
    """APScheduler executor alias; None = ours."""


class JobSpec(NamedTuple):
    """What was asked of a job, but for its name and arguments: jobs registered alike share one.

    ``mode``, ``jobstore`` and ``executor`` are None where left open. A tuple: a frozen dataclass takes five times as
    long to make.
    """

    func: JobFunction
    trigger: Trigger
    auto_named: bool
    on_loop: bool
    group: str | None = None
    jitter: float | None = None
    timeout: float | None = None
    timeout_disabled: bool = False
    mode: Mode | None = None
    where: Predicate | None = None
    on_error: ErrorHandler | None = None
    jobstore: str | None = None
    executor: str | None = None


Asked: TypeAlias = tuple[JobSpec, str, tuple[Any, ...], Mapping[str, Any]]
"""One validated registration: the spec, the name, the arguments and the keyword arguments of the function."""


@dataclass(frozen=True, slots=True)
class _Rule:
    fits: Callable[[Any], bool]
    remedy: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_callable_with(count: int) -> Callable[[Any], bool]:
    return lambda value: value is None or (callable(value) and misfit(value, (None,) * count, {}) is None)


def _is_alias(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value != "")


_MODES: tuple[str, ...] = get_args(Mode)
_IF_EXISTS: tuple[str, ...] = get_args(IfExists)
_RULES: dict[str, _Rule] = {
    "name": _Rule(
        lambda v: isinstance(v, str) and (v == "" or v.isprintable()),
        "a str of printable characters; leave it out for a generated one",
    ),
    "group": _Rule(
        lambda v: v is None or (isinstance(v, str) and v != "" and v.isprintable()),
        "a non-empty str of printable characters, or None",
    ),
    "jitter": _Rule(
        lambda v: v is None or (_is_number(v) and 0 <= v <= _CENTURY),
        "seconds >= 0 (at most 100 years), such as jitter=30, or None",
    ),
    "timeout": _Rule(
        lambda v: v is None or (_is_number(v) and 0 < v <= _CENTURY),
        "seconds > 0 (at most 100 years), such as timeout=30; for no limit use timeout_disabled=True",
    ),
    "timeout_disabled": _Rule(lambda v: isinstance(v, bool), "True or False"),
    "mode": _Rule(lambda v: v is None or v in _MODES, f"one of {', '.join(map(repr, _MODES))}"),
    "where": _Rule(_is_callable_with(0), "a callable without arguments that returns a bool, or None"),
    "on_error": _Rule(_is_callable_with(1), "a callable taking one SchedulerErrorContext, or None"),
    "if_exists": _Rule(lambda v: v in _IF_EXISTS, f"one of {', '.join(map(repr, _IF_EXISTS))}"),
    "args": _Rule(
        lambda v: isinstance(v, Iterable) and not isinstance(v, str | bytes | Mapping),
        "a list or tuple of positional arguments, such as args=[1, 2]",
    ),
    "kwargs": _Rule(
        lambda v: isinstance(v, Mapping) and all(isinstance(k, str) for k in cast("Mapping[Any, Any]", v)),
        "a dict with str keys, such as kwargs={'entity': 'light.kitchen'}",
    ),
    "jobstore": _Rule(_is_alias, "the alias of one of the AsyncIOScheduler's job stores, or None"),
    "executor": _Rule(_is_alias, "the alias of one of the AsyncIOScheduler's executors, or None"),
}

_WRONG_TYPE = (
    "name",
    "group",
    "where",
    "on_error",
    "args",
    "kwargs",
    "jobstore",
    "executor",
    "timeout_disabled",
)


def validated(func: JobFunction, trigger: object, options: Mapping[str, Any]) -> Asked:
    """Validate one registration.

    Raises:
        TypeError: an unknown option, a non-callable, a trigger of no accepted kind, a value of the wrong type,
            arguments that do not fit the function.
        ValueError: a value of the right type that is not allowed.
    """
    if not callable(func):
        label = _label(func, options)
        raise TypeError(f"job {label}: func must be callable, got {func!r}; give the function itself, not its result")
    for key, value in options.items():
        try:
            allowed = _RULES[key].fits(value)
        except (LookupError, TypeError, ValueError, OverflowError):  # unknown, unhashable, uncomparable, too large
            allowed = False
        if not allowed:
            raise _refusal(func, options, key)
    if options.get("timeout") is not None and options.get("timeout_disabled"):
        raise ValueError(
            f"job {_label(func, options)}: timeout={options['timeout']!r} together with timeout_disabled=True; give one"
            " of the two"
        )
    try:
        planned = as_trigger(trigger)
    except TypeError as exc:
        raise naming_the_job(exc, func, options) from exc
    kept: dict[str, Any] = dict(options)
    kept.pop("if_exists", None)
    name = kept.pop("name", "")
    args = tuple(kept.pop("args", ()))
    keywords = MappingProxyType(dict(kept.pop("kwargs"))) if "kwargs" in kept else NO_KWARGS
    problem = misfit(func, args, keywords)
    if problem is not None:
        raise TypeError(
            f"job {_label(func, options)}: arguments do not fit {name_of(func)}(): {problem}; see args= and kwargs="
        )
    spec = JobSpec(func, planned, not name, runs_on_loop(func), **kept)
    return spec, name or auto_name(func, planned), args, keywords


def _refusal(func: object, options: Mapping[str, Any], key: str) -> Exception:
    """Why an option is not taken."""
    value, rule = options[key], _RULES.get(key)
    if rule is None:
        near = get_close_matches(key, _RULES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"options are {', '.join(_RULES)}"
        return TypeError(f"job {_label(func, options)}: unknown option {key!r}; {hint}")
    kind = TypeError if key in _WRONG_TYPE or not isinstance(value, str | int | float) else ValueError
    return kind(f"job {_label(func, options)}: {key}={value!r} is not allowed; give {rule.remedy}")


def auto_name(func: JobFunction, trigger: Trigger) -> str:
    """``function:trigger_id``; never a memory address."""
    return f"{name_of(func)}:{trigger.trigger_id()}"


def _label(func: Any, options: Mapping[str, Any]) -> str:
    name = options.get("name")
    return repr(name if isinstance(name, str) and name else name_of(func))


def naming_the_job(exc: Exception, func: object, options: Mapping[str, Any]) -> Exception:
    """The same refusal, with the job's name in front."""
    kind = TypeError if isinstance(exc, TypeError) else ValueError
    return kind(f"job {_label(func, options)}: {exc}")


_COMPARED: tuple[str, ...] = (
    "func",
    "trigger",
    "group",
    "jitter",
    "timeout",
    "timeout_disabled",
    "mode",
    "args",
    "kwargs",
    "on_error",
)


class Described(Protocol):
    """A job, as far as registrations are compared."""

    spec: JobSpec
    args: tuple[Any, ...]
    keywords: Mapping[str, Any]


def changed_fields(old: Described, new: Described) -> list[str]:
    """The names of the fields in which two registrations of one name differ, in the order they are compared."""
    return [name for name in _COMPARED if not _same(name, _field(old, name), _field(new, name))]


def _field(job: Described, name: str) -> Any:
    return job.args if name == "args" else job.keywords if name == "kwargs" else getattr(job.spec, name)


def is_repeated(job: Described, func: object, trigger: object, options: Mapping[str, Any], mode: Mode) -> bool:
    """Whether a registration, as it is written, is the one that made ``job``; False where it takes a closer look.

    ``mode`` stands for one that is not given. What is equal to something valid needs no validation.
    """
    spec = job.spec
    if not (_alike(func, spec.func) and _alike(trigger, spec.trigger) and options.keys() <= _RULES.keys()):
        return False
    get = options.get
    for name, default in _AS_GIVEN:
        if not _alike(get(name, default), getattr(spec, name)):
            return False
    args, kwargs, given_mode = get("args", ()), get("kwargs", NO_KWARGS), get("mode")
    return (
        (mode if given_mode is None else given_mode) == spec.mode
        and (args is job.args or (type(args) in (list, tuple) and equal(tuple(args), job.args)))
        and (kwargs is job.keywords or (type(kwargs) is dict and equal(kwargs, job.keywords)))
    )


_AS_GIVEN: tuple[tuple[str, Any], ...] = tuple(
    (name, default) for name, default in JobSpec._field_defaults.items() if name != "mode"
)


def _alike(new: Any, old: Any) -> bool:
    return new is old or (type(new) is type(old) and equal(new, old))


def _same(name: str, old: Any, new: Any) -> bool:
    if name == "trigger":
        return cast(Trigger, old).trigger_id() == cast(Trigger, new).trigger_id()
    if name in ("func", "on_error"):
        return same_callable(old, new)
    return equal(old, new)


def equal(old: Any, new: Any) -> bool:
    """``==`` as a bool; False where comparing raises or gives no truth value (arrays)."""
    try:
        return old is new or bool(old == new)
    except Exception:  # noqa: BLE001  a user's __eq__ may raise anything
        return False


def same_callable(old: Any, new: Any) -> bool:
    """``==``, and for partials their function, arguments and keywords."""
    if isinstance(old, partial) and isinstance(new, partial):
        one, two = cast("partial[Any]", old), cast("partial[Any]", new)
        return same_callable(one.func, two.func) and equal(one.args, two.args) and equal(one.keywords, two.keywords)
    return equal(old, new)
