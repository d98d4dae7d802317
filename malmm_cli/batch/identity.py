"""The identity of a batch's model: what decides a result besides video and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmm_cli import hub
from malmm_cli.checkpoints.layout import deciding
from malmm_cli.events import Events
from malmm_cli.files.fingerprint import folder_identity
from malmm_cli.pipeline.precheck import check_absent

__all__ = ["Weights"]


@dataclass(frozen=True)
class Weights:
    """A model by its name, and how it is loaded."""

    model: str
    device: str
    dtype: str
    quantize: str | None

    def known(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The identity that follows from a description (`hub.describe`), without the network."""
        folder = Path(model["folder"]) if model["folder"] else None
        return self._identity(model["name"], model["revision"], folder)

    def located(self, *, here: bool, offline: bool, events: Events) -> dict[str, Any]:
        """The identity of the model, which is downloaded unless it is `here`.

        Raises what `hub.locate` raises.
        """
        if here:
            found = hub.locate(self.model, offline=offline, events=events)
        else:
            check_absent(
                self.model,
                device=self.device,
                dtype=self.dtype,
                quantize=self.quantize,
                offline=offline,
            )
            with events.stage("download", "bytes"):
                found = hub.locate(
                    self.model, offline=offline, check_memory=self._check_memory, events=events
                )
        if found.origin.note:
            events.note(f"note: {found.name} is {found.origin.note}")
        return self._identity(found.name, found.revision, found.folder)

    def _check_memory(self, parameters: int) -> None:
        from malmm_cli.pipeline.loading import must_spread

        how = {"device": self.device, "dtype": self.dtype}
        must_spread(self.model, parameters, **how, quantize=self.quantize)

    def _identity(self, name: str, revision: str | None, folder: Path | None) -> dict[str, Any]:
        if revision is None and folder is not None:
            revision = folder_identity(folder, deciding(folder))
        numbers = {"dtype": self.dtype, "quantize": self.quantize}
        return {"model": name, "revision": revision, **numbers}
