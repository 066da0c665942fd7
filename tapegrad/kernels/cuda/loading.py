"""The form in which a driver takes a kernel: its PTX, the same under an older version, or machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...errors import KernelError
from .faults import REFUSED_PTX, NotLoaded
from .words import Function

if TYPE_CHECKING:
    from .driver import Driver


def prepared(driver: Driver, kernel: Any) -> Function:
    """A `template.Kernel`, loaded.

    Where the driver does not take its PTX, which may be newer than the driver, it gets that under an older version, and where
    that does not do either, machine code. What did once is the first thing tried from then on (`Driver.form`).
    """
    from . import door

    capability, version = driver.properties.capability, driver.properties.version
    ptx = kernel.ptx(capability)
    name, refused = door.entry(ptx), None
    forms: tuple[Callable[[], str | bytes], ...] = (
        lambda: ptx,
        lambda: door.lowered(ptx, version),
        lambda: door.assemble(door.lowered(ptx, version), capability),
    )
    for form in range(driver.form, len(forms)):
        try:
            made = driver.load(forms[form](), name, kernel.arguments)
        except NotLoaded as error:
            if form == 0 and error.status not in REFUSED_PTX:
                raise
            refused = refused or error
        except KernelError as error:
            if refused is None or type(error) is not KernelError:
                raise
            raise KernelError(f"{refused} Nor does machine code help: {error}") from error
        else:
            driver.form = form
            return made
    assert refused is not None
    raise refused
