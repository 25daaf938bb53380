"""What `typing` has only since Python 3.11, so that annotations can be read at run time on older ones too."""

import sys
from typing import TYPE_CHECKING, Any

__all__ = ["Self", "Unpack"]

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack
elif sys.version_info >= (3, 11):
    from typing import Self, Unpack
else:
    try:
        from typing_extensions import Self, Unpack
    except ImportError:  # nothing at run time needs it
        Self = Any

        class Unpack:
            """Stands for any keywords."""

            def __class_getitem__(cls, _: Any) -> Any:
                return Any
