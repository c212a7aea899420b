"""Programs that `torch.export.save` wrote, run without trusting the file.

`torch.export.load` unpickles parts of a file, evaluates expressions of others and calls whatever
attribute of torch the file names; TorchScript is deprecated and cannot be compiled as one graph.
The format itself is plain, a list of ATen calls in JSON and tensors as bytes, and that is all that
is read here: calls of `torch.ops.aten` and integer arithmetic, nothing else, nothing pickled.
Devices that the file names are ignored: a program runs where its images are.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from sri_cli.models.exported_calls import DTYPES, CannotRun, Here, Name, calls_of

FORMAT_MAJOR = 8  # of the schema, in torch 2.10 to 2.15
# What reading a file of other contents runs into.
MALFORMED = (
    AttributeError,
    KeyError,
    IndexError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


class Program:
    """One tensor in, one tensor out. `tensors` are its weights and constants by name."""

    def __init__(self, data: bytes) -> None:
        """Raises CannotRun."""
        try:
            archive = Archive(data)
            model = archive.json("models/model.json")
            if model["schema_version"]["major"] != FORMAT_MAJOR:
                raise CannotRun(f"format {model['schema_version']['major']}, not {FORMAT_MAJOR}")
            graph = model["graph_module"]["graph"]
            signature = model["graph_module"]["signature"]
            self.tensors, self.image = inputs_of(signature, archive)
            self.result = output_of(signature)
            self.calls = calls_of(graph["nodes"], keep={*self.tensors, self.result})
        except MALFORMED as e:
            if isinstance(e, CannotRun):
                raise
            raise CannotRun(f"not a program of torch.export.save ({type(e).__name__}: {e})") from e

    def __call__(self, images: Tensor) -> Tensor:
        """Runs on the device of the images; the weights must be there."""
        values: dict[str, Any] = {**self.tensors, self.image: images}

        def filled(argument: Any) -> Any:
            if isinstance(argument, Name):
                return values[argument.name]
            if isinstance(argument, Here):
                return images.device
            return [filled(part) for part in argument] if isinstance(argument, list) else argument

        for call in self.calls:
            kwargs = {name: filled(value) for name, value in call.kwargs.items()}
            result = call.function(*[filled(value) for value in call.args], **kwargs)
            results = (result,) if len(call.outputs) == 1 else result
            for names, value in zip(call.outputs, results, strict=True):
                if isinstance(names, str):
                    values[names] = value
                else:
                    values.update(zip(names, value, strict=True))
            for name in call.done:
                del values[name]
        return values[self.result]


class Archive:
    """The zip file's members, below its one top folder."""

    def __init__(self, data: bytes) -> None:
        self.zip = zipfile.ZipFile(BytesIO(data))
        self.top = self.zip.namelist()[0].split("/")[0]
        if self.read("byteorder") != b"little":
            raise CannotRun("written on a big-endian machine")

    def read(self, name: str) -> bytes:
        return self.zip.read(f"{self.top}/{name}")

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def tensors(self, folder: str, listing: str) -> dict[str, Tensor]:
        """The tensors that `listing` (JSON) describes; CannotRun for a pickled one."""
        config: Mapping[str, Any] = self.json(f"{folder}/{listing}")["config"]
        return {name: self._tensor(folder, name, entry) for name, entry in config.items()}

    def _tensor(self, folder: str, name: str, entry: Any) -> Tensor:
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise CannotRun(f"{name} is pickled")
        meta = entry["tensor_meta"]
        raw = bytearray(self.read(f"{folder}/{entry['path_name']}"))
        dtype = DTYPES[meta["dtype"]]
        flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        sizes, strides = ([s["as_int"] for s in meta[key]] for key in ("sizes", "strides"))
        return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"]).clone()


def inputs_of(signature: Any, archive: Archive) -> tuple[dict[str, Tensor], str]:
    """Weights and constants by the name that the graph gives them, and the name of the image."""
    weights = archive.tensors("data/weights", "model_weights_config.json")
    constants = archive.tensors("data/constants", "model_constants_config.json")
    tensors, images = {}, []
    for spec in signature["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "user_input":
            images.append(value["arg"]["as_tensor"]["name"])
        elif kind == "parameter":
            tensors[value["arg"]["name"]] = weights[value["parameter_name"]]
        elif kind == "buffer":
            source = weights if value["persistent"] else constants
            tensors[value["arg"]["name"]] = source[value["buffer_name"]]
        elif kind == "tensor_constant":
            tensors[value["arg"]["name"]] = constants[value["tensor_constant_name"]]
        else:
            raise CannotRun(f"wants an input of kind {kind}")
    if len(images) != 1:
        raise CannotRun(f"takes {len(images)} inputs, not one batch of images")
    return tensors, images[0]


def output_of(signature: Any) -> str:
    """The name of the one result."""
    specs = signature["output_specs"]
    if len(specs) != 1 or "user_output" not in specs[0]:
        raise CannotRun("gives more than one tensor, or changes its own weights")
    return specs[0]["user_output"]["arg"]["as_tensor"]["name"]
