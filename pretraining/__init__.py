"""The recipe that makes the packaged backbone `polyprefix/nano` from folders of text."""
