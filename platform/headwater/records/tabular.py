"""What every reply can become: a picture of itself in a notebook, and where it has rows a table of other libraries."""

from __future__ import annotations

from typing import Any


class Shown:
    """A value that notebooks show as a table of its fields, all of it escaped, and terminals as text."""

    __slots__ = ()

    def __str__(self) -> str:
        from headwater.records import frames

        return frames.fields_text(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        from headwater.records import frames

        return frames.fields_html(self)


class Tabular(Shown):
    """A reply with rows: hits, records, patterns, anomalies ... `headwater.records.frames` says what the columns are."""

    __slots__ = ()

    def __str__(self) -> str:
        from headwater.records import frames

        return frames.to_text(self)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame: one line for each row; UsageError where pandas is not installed."""
        from headwater.records import frames

        return frames.to_pandas(self)

    def to_polars(self) -> Any:
        """A polars.DataFrame: one line for each row; UsageError where polars is not installed."""
        from headwater.records import frames

        return frames.to_polars(self)

    def to_arrow(self) -> Any:
        """A pyarrow.Table: one line for each row; UsageError where pyarrow is not installed."""
        from headwater.records import frames

        return frames.to_arrow(self)

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        """Arrow's own interface: `polars.DataFrame(reply)`, DuckDB and others take a reply as it is. Needs pyarrow."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        from headwater.records import frames

        return frames.to_html(self)
