"""A model that OpenVINO has compiled for this CPU, for threads and through forks."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._cpus import asked_threads
from rerank_plugins._threads import after_fork_in_child, fork_safe_lock, lock_without_forks
from rerank_plugins.errors import OutOfMemoryError

if TYPE_CHECKING:
    import openvino

_TELEMETRY: Final = "openvino_telemetry"
_LONGEST_WAIT: Final = 1.0  # seconds
_importing: Final = fork_safe_lock()


class CompiledModel:
    """Many threads may call it; it runs one forward pass at a time.

    Args:
        model: Gives what is compiled: now, and again in a forked child at its first pass.
        bf16: Compute in bf16, not fp32.
    """

    def __init__(self, model: Callable[[], openvino.Model], *, bf16: bool) -> None:
        self._lock = lock_without_forks()
        self._request: Any = None
        self._model = model
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            # One batch at a time on all cores; pinned threads of several processes would
            # all sit on the same cores.
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        if (threads := asked_threads()) is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        with self._lock:
            self._request = self._compiled()
        after_fork_in_child(self, "_forget_request")

    def __del__(self, longest: float = _LONGEST_WAIT) -> None:  # a global is gone at exit
        # OpenVINO takes models down under locks of its own, which no fork may fall into. Not for
        # ever: garbage may be collected wherever a thread is, in the middle of an import too.
        held = self._lock.acquire(timeout=longest)
        self._request = None
        del self._model
        if held:
            self._lock.release()

    def _compiled(self) -> Any:
        core = openvino_library().Core()
        return core.compile_model(self._model(), "CPU", self._settings).create_infer_request()

    def _forget_request(self) -> None:
        """In a forked child, which lacks the threads that computed: it compiles its own.

        The parent's must never be freed there, not even at exit: it would wait for them.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._request))
        self._request = None

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The model's first output, whatever it computes in.

        Args:
            inputs: By name; each of shape (rows, tokens, ...).

        Raises:
            OutOfMemoryError: If the batch does not fit in memory; a smaller may.
        """
        try:
            with self._lock:  # an infer request serves one call at a time
                if self._request is None:
                    self._request = self._compiled()
                return np.array(self._request.infer(inputs)[0], dtype=np.float32)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and "alloc" not in str(error):
                raise
            rows, longest = next(iter(inputs.values())).shape[:2]
            raise OutOfMemoryError(
                f"a batch of {rows} x {longest} tokens does not fit in memory: {error}"
            ) from error


def openvino_library() -> Any:
    """The module ``openvino``."""
    with without_telemetry():
        import openvino

        return openvino


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Imports OpenVINO's tools without their telemetry, which reports to a server by default.

    They do without when it is not installed; so it is not, for the moment.
    """
    with _importing:
        hidden = _TELEMETRY not in sys.modules
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            if hidden:
                del sys.modules[_TELEMETRY]
