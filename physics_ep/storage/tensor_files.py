"""Files in the format safetensors: a length, a JSON header and plain bytes, so that nothing in them can be code.

Format: https://github.com/huggingface/safetensors, section "Format". Eight bytes hold the length N of the header,
little-endian; N bytes of JSON follow, name to `dtype`, `shape` and `data_offsets`, with texts under `__metadata__`;
all else are the tensors' bytes, little-endian, without gaps.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
METADATA = "__metadata__"
LONGEST = 100_000_000
"""Bytes that a header may have, as the format says: a longer one is damage, or an attack."""


def tensors_of(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and texts of a file in the format safetensors.

    Parameters
    ----------
    content : bytes
        The whole file.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU, copies of their own.
    metadata : dict of str to str

    Raises
    ------
    ValueError
        If the content is not as the format says; the message says in what.
    """
    if sys.byteorder != "little":
        raise ValueError("this machine has its bytes in the other order")
    if len(content) < 8:
        raise ValueError("it is shorter than the length of a header")
    length = int.from_bytes(content[:8], "little")
    if length > min(LONGEST, len(content) - 8):
        raise ValueError("its header is longer than the file")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop(METADATA, {})
    data, tensors, end = memoryview(content)[8 + length :], {}, 0
    for name, told in sorted(header.items(), key=lambda item: _begin(item[1])):
        dtype, shape, begin, stop = _told(name, told)
        if begin != end or stop - begin != dtype.itemsize * math.prod(shape) or stop > len(data):
            raise ValueError(f"the bytes of {name!r} are not where the header says")
        end = stop
        raw = torch.frombuffer(bytearray(data[begin:stop]), dtype=dtype) if stop > begin else torch.empty(0)
        tensors[name] = raw.to(dtype).reshape(shape)
    if end != len(data):
        raise ValueError("bytes follow the last tensor")
    return {name: tensors[name] for name in header}, metadata


def file_of_tensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a file in the format safetensors.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    metadata : mapping of str to str, optional
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    parts, end = [], 0
    for name, tensor in tensors.items():
        held = tensor.detach().cpu().contiguous()
        part = held.flatten().view(torch.uint8).numpy().tobytes() if held.numel() else b""
        offsets = [end, end + len(part)]
        header[name] = {"dtype": names[held.dtype], "shape": list(held.shape), "data_offsets": offsets}
        parts.append(part)
        end = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def _begin(told: Any) -> int:
    try:
        return int(told["data_offsets"][0])
    except (KeyError, TypeError, IndexError, ValueError):
        return -1


def _told(name: str, told: Any) -> tuple[torch.dtype, list[int], int, int]:
    try:
        dtype, shape, (begin, stop) = DTYPES[told["dtype"]], [int(n) for n in told["shape"]], told["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"its header does not say what {name!r} is") from None
    if min(shape, default=0) < 0 or not (isinstance(begin, int) and isinstance(stop, int)):
        raise ValueError(f"its header does not say what {name!r} is")
    return dtype, shape, begin, stop
