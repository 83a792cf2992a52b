"""Tables of records for people."""

from polyprefix.report.console import new_table, show_comparison, show_record
from polyprefix.report.page import write_page
from polyprefix.report.study import duration, show_notes, show_settings, write_pages

__all__ = [
    "duration",
    "new_table",
    "show_comparison",
    "show_notes",
    "show_record",
    "show_settings",
    "write_page",
    "write_pages",
]
