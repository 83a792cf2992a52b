"""Tables of records for people."""

from polyprefix.report.console import show_record

__all__ = ["show_record"]
