"""Tables of records for people."""

from polyprefix.report.console import new_table, plain, show_comparison, show_record
from polyprefix.report.page import EXAMPLES, settings_by_method, write_page
from polyprefix.report.study import duration, notes, show_notes, show_settings

__all__ = [
    "EXAMPLES",
    "duration",
    "new_table",
    "notes",
    "plain",
    "settings_by_method",
    "show_comparison",
    "show_notes",
    "show_record",
    "show_settings",
    "write_page",
]
