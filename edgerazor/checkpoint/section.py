"""The `quantization_config` of config.json: what a packed (or a quantization-aware) checkpoint says about itself.

The module list is explicit and complete, so a reader allocates from it and matches no patterns.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError, model_validator

from edgerazor.core.packing import Layout
from edgerazor.errors import CheckpointError
from edgerazor.schemas.base import Schema, problem
from edgerazor.schemas.recipe import key_path
from edgerazor.version import __version__

METHOD = "edgerazor"
FORMAT_VERSION = 1
CONFIG, MANIFEST = "config.json", "edgerazor.json"
_USUAL_QMAX = {"t5": 1, "i4": 7, "i8": 127}


UnquantizedDtype = Literal["bfloat16", "float16"]


class StoredLayout(Schema):
    """How the rows of a matrix are stored: one entry per kind of row, narrow first."""

    title: ClassVar[str] = "layout"

    storage: Annotated[tuple[Literal["t5", "i4", "i8"], ...], Field(min_length=1, max_length=2)]
    qmax: Annotated[tuple[Annotated[int, Field(ge=1, le=127)], ...], Field(min_length=1, max_length=2)]
    group_size: Annotated[int, Field(ge=1)]


class StoredModule(Schema):
    """Which layout a module has, and how many of its rows are of the wider kind."""

    title: ClassVar[str] = "module"

    layout: str
    wide_rows: Annotated[int, Field(ge=0)] = 0


class PackedSection(Schema):
    """A packed checkpoint; `tied` maps a module to the one whose weight it shares.

    `unquantized_dtype` is what everything else was rounded to, the base model's own 16-bit dtype; absent for bfloat16.
    """

    title: ClassVar[str] = "quantization_config"

    quant_method: Literal["edgerazor"] = "edgerazor"
    format_version: Literal[1] = 1
    mode: Literal["packed"] = "packed"
    edgerazor_version: str = __version__
    layouts: dict[str, StoredLayout]
    modules: Annotated[dict[str, StoredModule], Field(min_length=1)]
    tied: dict[str, str]
    guard: str
    activations: dict[str, Any] | None = None
    kv_cache: dict[str, Any] | None = None
    unquantized_dtype: UnquantizedDtype = "bfloat16"
    recipe: dict[str, Any]
    content_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _consistent(self) -> "PackedSection":
        for name, layout in self.layouts.items():
            if len(layout.storage) != len(layout.qmax):
                raise problem(f"layouts.{name}: storage and qmax differ in length")
        for name, module in self.modules.items():
            known = self.layouts.get(module.layout)
            if known is None:
                raise problem(f"modules.{name}: there is no layout '{module.layout}'")
            if (len(known.qmax) == 2) != (module.wide_rows > 0):
                raise problem(
                    f"modules.{name}: wide_rows is {module.wide_rows}, layout has {len(known.qmax)} kinds of rows"
                )
        for name, owner in self.tied.items():
            if owner not in self.modules:
                raise problem(f"tied.{name}: there is no module '{owner}'")
        if self.guard.removesuffix(".weight") not in self.modules:
            raise problem(f"guard: '{self.guard}' is not the weight of a packed module")
        return self

    def layout(self, module: str) -> Layout:
        """The layout of one module."""
        stored = self.modules[module]
        layout = self.layouts[stored.layout]
        return Layout(tuple(layout.storage), layout.qmax, layout.group_size, stored.wide_rows)

    def to_dict(self) -> dict[str, Any]:
        """As config.json holds it; `wide_rows` only where there are two kinds of rows."""
        content = without_bfloat16(self.model_dump(mode="json"))
        content["modules"] = {
            name: module.model_dump(mode="json", exclude_defaults=True) for name, module in self.modules.items()
        }
        return content


class QATSection(Schema):
    """A checkpoint of latent float weights in quantization-aware training.

    `unquantized_dtype` is what packing rounds everything else to, the base model's own 16-bit dtype.
    """

    title: ClassVar[str] = "quantization_config"

    quant_method: Literal["edgerazor"] = "edgerazor"
    format_version: Literal[1] = 1
    mode: Literal["qat"] = "qat"
    edgerazor_version: str = __version__
    modules: Annotated[
        list[str] | None, Field(description="Modules that the recipe quantizes; compared when it is loaded.")
    ] = None
    unquantized_dtype: UnquantizedDtype = "bfloat16"
    recipe: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As config.json holds it."""
        return without_bfloat16(self.model_dump(mode="json", exclude_none=True))


def dtype_name(dtype: torch.dtype) -> UnquantizedDtype:
    """`torch.float16` as files name it."""
    return "float16" if dtype == torch.float16 else "bfloat16"


def without_bfloat16(content: dict[str, Any]) -> dict[str, Any]:
    """A dumped section or manifest as files hold it: `unquantized_dtype` is written where it is not bfloat16.

    So a checkpoint of a bfloat16 base is, byte by byte, what it was before there was a choice.
    """
    return {key: value for key, value in content.items() if (key, value) != ("unquantized_dtype", "bfloat16")}


def read_section(content: Any, where: str) -> PackedSection | QATSection:
    """Check a `quantization_config` and return it typed.

    Args:
        content: the value found in config.json, or None.
        where: file name for messages.

    Raises:
        CheckpointError: it is absent, of another method, of a newer format, or malformed; one line per problem.
    """
    where = f"{where}: quantization_config"
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{where} is missing: this is not an edgerazor checkpoint")
    method, version, mode = (content.get(key) for key in ("quant_method", "format_version", "mode"))
    if method != METHOD:
        raise CheckpointError(f"{where}.quant_method: is {method!r}, expected '{METHOD}'")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{where}.format_version: is {version}, written by edgerazor {content.get('edgerazor_version')}; "
            f"edgerazor {__version__} reads up to {FORMAT_VERSION}: install a newer edgerazor"
        )
    sections: dict[Any, type[PackedSection] | type[QATSection]] = {"packed": PackedSection, "qat": QATSection}
    if mode not in sections:
        raise CheckpointError(f"{where}.mode: is {mode!r}, expected 'packed' or 'qat'")
    try:
        return sections[mode].model_validate(dict(content))
    except ValidationError as error:
        lines = [
            f"{where}{'.' if line['loc'] else ''}{key_path(line['loc'])}: {line['msg']}" for line in error.errors()
        ]
        raise CheckpointError("\n".join(lines)) from error


def layout_name(layout: Layout) -> str:
    """A readable name such as `t5-i4-g256`; a width unusual for its storage is written out: `i4q3-g64`."""
    kinds = (
        storage if qmax == _USUAL_QMAX[storage] else f"{storage}q{qmax}"
        for storage, qmax in zip(layout.storage, layout.qmax, strict=True)
    )
    return f"{'-'.join(kinds)}-g{layout.group_size}"


def store_layouts(layouts: Mapping[str, Layout]) -> tuple[dict[str, StoredLayout], dict[str, StoredModule]]:
    """`layouts` and `modules` of the section, from the layout of every module."""
    named: dict[str, StoredLayout] = {}
    modules: dict[str, StoredModule] = {}
    for name, layout in layouts.items():
        label = layout_name(layout)
        named[label] = StoredLayout(storage=layout.storage, qmax=layout.qmax, group_size=layout.group_size)  # type: ignore[arg-type]
        modules[name] = StoredModule(layout=label, wide_rows=layout.wide_rows)
    return named, modules
