"""What a config may bind: the marker of functions, and the ranges of their parameters.

A function that is marked with `@configurable` can be bound in every config by its name; nothing else has to be listed. Its
annotations say what each parameter takes: `mm_keras.config` checks bound values against them before anything is loaded. The
function itself stays as it is, and knows nothing of configs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from annotated_types import Ge, Gt, Le, Len, Lt

Function = TypeVar("Function", bound=Callable)

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
PositiveFraction = Annotated[float, Gt(0), Le(1)]
Rate = Annotated[float, Ge(0), Lt(1)]  # of dropout, smoothing and the like: 1 would leave nothing
OpenFraction = Annotated[float, Gt(0), Lt(1)]
ImageSize = Annotated[Sequence[Annotated[int, Ge(8)]], Len(2, 2)]  # (height, width) in pixels


def configurable(function: Function) -> Function:
    """Marks a function as one that configs can bind, and returns it unchanged.

    Example:
        >>> @configurable
        ... def build_sum_fusion(shapes, scale: PositiveFloat = 1.0) -> keras.Model: ...
        # in a config: build_two_tower.fusion = @build_sum_fusion
        #              build_sum_fusion.scale = 2.0
    """
    function.configurable = True
    return function


def checked_early(check: Callable[..., None], unless_none: str = "") -> Callable[[Function], Function]:
    """Marks a configurable function with a check of its values, which runs before data are packed or a model is built.

    Args:
        check: a function that takes some of the marked function's parameters by their names, with the values that a config
            binds or their defaults, and raises if the marked function cannot work with them. What it fetches has to be kept
            for later.
        unless_none: the parameter of another function, "make_features.image_size", with which this one is not called if it is
            None.

    Example:
        >>> @configurable
        ... @checked_early(check_weights)
        ... def build_image_tower(spec, architecture="resnet50_v2", weights="imagenet"): ...
    """

    def mark(function: Function) -> Function:
        function.check_early, function.unless_none = check, unless_none
        return function

    return mark
