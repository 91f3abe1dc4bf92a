"""What an error handler is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hassette_aps.jsonable import Json, jsonable, to_json

if TYPE_CHECKING:  # whoever uses pydantic with it has loaded these
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class SchedulerErrorContext:
    """One failed run, for ``on_error`` handlers.

    Attributes:
        exception: What the job raised; a ``TimeoutError`` for a run that exceeded its timeout.
        traceback: The full text: frames, causes and the exception line.
        job_name: The job's name.
        job_group: The job's group, or None.
        args: Positional arguments the job was scheduled with.
        kwargs: A copy of the keyword arguments.
        execution_id: UUIDv7 of the run, as in the log line and the record.
    """

    exception: BaseException
    traceback: str
    job_name: str
    job_group: str | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    execution_id: str = field(default="", kw_only=True)

    def as_json(self) -> Json:
        """The context as plain JSON values; the exception becomes its type and message. Never raises."""
        return jsonable(
            {
                "exception": {"type": type(self.exception).__qualname__, "message": _Message(self.exception)},
                "traceback": self.traceback,
                "job_name": self.job_name,
                "job_group": self.job_group,
                "args": self.args,
                "kwargs": self.kwargs,
                "execution_id": self.execution_id,
            }
        )

    def to_json(self) -> str:
        """``as_json`` as text, ready for an alert."""
        return to_json(self.as_json())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        as_json: Callable[[Any], Json] = cls.as_json
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(as_json, when_used="json")
        )


class _Message:
    """``str(exception)``, made only inside ``jsonable``, which survives an exception that cannot be printed."""

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    def __repr__(self) -> str:
        return str(self.exc)
