"""Mails by SMTP (RFC 5321), over connections that are kept: opening one costs more than sending a mail."""
