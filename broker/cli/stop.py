"""How commands end when they do not succeed."""


class Stop(Exception):
    """The end of a command that did not succeed: what to print on standard error, and the code."""

    exit_code = 1


class Negative(Stop):
    """The answer is no: what was asked for was refused, or does not hold."""


class Misconfigured(Stop):
    """The configuration is wrong. Each problem begins with its place, as compilers print them."""

    exit_code = 3
