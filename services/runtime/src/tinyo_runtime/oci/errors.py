"""The one kind of error that people see: a sentence that says what, where, and what to do."""


class OciError(Exception):
    """Told as `tinyo-oci: MESSAGE`, and in the log of whoever called us."""
