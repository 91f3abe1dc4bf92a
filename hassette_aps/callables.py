"""Questions about a callable: its name, its reference, whether it runs on the loop, whether arguments fit."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import CoroutineType, FunctionType, MethodType
from typing import Any, TypeGuard, cast

from apscheduler.util import obj_to_ref


def unwrap_partial(func: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside any nesting of ``functools.partial``."""
    while isinstance(func, partial):
        func = cast("partial[Any]", func).func
    return func


def name_of(func: Callable[..., Any]) -> str:
    """The function's name; for a partial the wrapped one's, for a callable instance its class's."""
    inner = unwrap_partial(func)
    return getattr(inner, "__name__", None) or type(inner).__name__


def reference_of(func: Callable[..., Any]) -> str | None:
    """``module:qualname``, as APScheduler writes it (``util.obj_to_ref``); None where there is none."""
    try:
        return obj_to_ref(func)
    except (ValueError, TypeError, AttributeError):
        return None


def runs_on_loop(func: Callable[..., Any]) -> bool:
    """Whether calling ``func`` is known to give a coroutine.

    Looks through partials, bound methods, callable instances and ``functools.wraps``. A plain function
    that merely returns an awaitable is found out only by calling it.
    """
    inner = unwrap_partial(func)
    if type(inner) is FunctionType:
        if inner.__code__.co_flags & inspect.CO_COROUTINE:
            return True
        if not hasattr(inner, "__wrapped__"):
            return inspect.iscoroutinefunction(inner)
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__  # a callable instance
    return any(inspect.iscoroutinefunction(layer) for layer in _layers(inner))


def is_awaitable(value: Any) -> TypeGuard[Awaitable[Any]]:
    """``inspect.isawaitable``, at once for what nearly every run gives."""
    return type(value) is CoroutineType or inspect.isawaitable(value)


def _layers(func: Any) -> list[Any]:
    layers: list[Any] = []
    while func is not None and len(layers) < 64:  # a cycle of __wrapped__ must not hang registration
        layers.append(func)
        func = getattr(func, "__wrapped__", None)
    return layers


def misfit(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Why ``func(*args, **kwargs)`` cannot be called, or None if it can (or nobody can tell)."""
    if not args and not kwargs and _needs_nothing(func):
        return None
    try:
        signature = inspect.signature(func, follow_wrapped=False)
    except (ValueError, TypeError):  # some builtins have no signature
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        return str(exc)
    return None


def _needs_nothing(func: Callable[..., Any]) -> bool:
    """Whether a plain function or bound method has no required parameter, from its code object alone."""
    bound = 0
    plain: Any = func
    if type(plain) is MethodType:
        plain, bound = plain.__func__, 1
    if type(plain) is not FunctionType:
        return False
    code = plain.__code__
    required = code.co_argcount - len(plain.__defaults__ or ()) - bound
    return required <= 0 and code.co_kwonlyargcount == len(plain.__kwdefaults__ or ()) and code.co_argcount >= bound
