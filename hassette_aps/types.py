"""The names that signatures share."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

Mode: TypeAlias = Literal["parallel", "single", "queued", "restart"]
"""What happens to a due run while another run of the same job is in progress."""

IfExists: TypeAlias = Literal["error", "skip", "replace"]
"""What registration does when the name is taken."""

JobFunction: TypeAlias = Callable[..., Any]
"""A job's function: plain, coroutine, or anything callable that may return an awaitable."""

Predicate: TypeAlias = Callable[[], bool | Awaitable[bool]]
"""Asked just before a run; false skips it."""

ErrorHandler: TypeAlias = Callable[[Any], Any]
"""Called with one ``SchedulerErrorContext``; sync (in a thread) or async."""

RunHook: TypeAlias = Callable[[Any], Any]
"""Called with one ``ExecutionRecord`` per verdict; sync (in a thread) or async."""
