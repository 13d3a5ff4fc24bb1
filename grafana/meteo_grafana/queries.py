"""Queries of panels and variables: PromQL by the SDK's builder, SQL by one of our own, which the SDK does not have."""

from __future__ import annotations

from textwrap import dedent

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${prometheus}")
POSTGRESQL = DataSourceRef(type_val="grafana-postgresql-datasource", uid="${postgresql}")


class SqlQuery(Dataquery):
    """A statement for the PostgreSQL data source, in the fields that its query editor saves."""

    def __init__(self, statement: str, form: str) -> None:
        self.statement = statement
        self.form = form
        self.ref_id = "A"

    def to_json(self) -> dict[str, object]:
        """Return the fields by the names that Grafana gives them."""
        return {
            "datasource": POSTGRESQL.to_json(),
            "editorMode": "code",
            "format": self.form,
            "rawQuery": True,
            "rawSql": self.statement,
            "refId": self.ref_id,
        }


class Sql(Builder[Dataquery]):
    """Builds a statement; as a time series its first column is `time`, and each other column is a series."""

    def __init__(self, statement: str, form: str) -> None:
        self._query = SqlQuery(dedent(statement).strip(), form)

    def ref_id(self, name: str) -> None:
        """Set the letter by which the panel tells its queries apart."""
        self._query.ref_id = name

    def build(self) -> Dataquery:
        """Return the query."""
        return self._query


Query = Sql | prometheus.Dataquery


def series(statement: str) -> Sql:
    """Return a statement whose columns are drawn over the column `time`."""
    return Sql(statement, "time_series")


def rows(statement: str) -> Sql:
    """Return a statement whose rows are shown as they are."""
    return Sql(statement, "table")


def over_time(expression: str, legend: str) -> prometheus.Dataquery:
    """Return a PromQL query over the dashboard's range."""
    return prometheus.Dataquery().expr(_line(expression)).legend_format(legend).range().datasource(PROMETHEUS)


def now(expression: str, legend: str) -> prometheus.Dataquery:
    """Return a PromQL query at the end of the dashboard's range."""
    return prometheus.Dataquery().expr(_line(expression)).legend_format(legend).instant().datasource(PROMETHEUS)


def now_as_rows(expression: str, legend: str) -> prometheus.Dataquery:
    """Return the same with the labels as columns, for tables."""
    return now(expression, legend).format(PromQueryFormat.TABLE)


def or_none(expression: str, label: str) -> str:
    """Return the expression with one series of 0, labelled `none`, while nothing of it was ever counted.

    A counter with labels has no series before its first event, and "No data" would not say that all is well.
    """
    return f'({expression}) or on () label_replace(vector(0), "{label}", "none", "", "")'


def _line(expression: str) -> str:
    return " ".join(expression.split())
