"""What reports are made with, which not every installation has."""

from edgerazor.errors import EdgeRazorError, install_hint


def check_report_extra() -> None:
    """Import what a report is made with, so that a long run need not end in finding that it is absent.

    Raises:
        EdgeRazorError: the extra `report` (Jinja2 and matplotlib) is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise EdgeRazorError(f"the report needs {error.name}: {install_hint('report')}") from error
